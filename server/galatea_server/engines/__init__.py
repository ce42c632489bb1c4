"""TensorRT engines of a release, built on the GPU that shall run them.

``recipe`` says what is built and how it is served, ``building`` builds it, ``checking`` compares it
with the ONNX graph before it is added to the release.
"""
