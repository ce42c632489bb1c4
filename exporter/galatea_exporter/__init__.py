"""From a PyTorch checkpoint to a release in a Triton model repository."""

import os

# On several threads PyTorch's MKL gives other last bits from run to run. The card tells how far the
# graph is from PyTorch, and exporting twice must give the same card.
os.environ.setdefault("MKL_CBWR", "AVX2")

# From 1.29 on, ONNX Runtime reports names and digests of models to its makers, unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
