"""The embedded Triton server."""
