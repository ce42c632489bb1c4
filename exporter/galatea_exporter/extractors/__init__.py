"""Networks whose features images are compared by, released as served models like generators."""
