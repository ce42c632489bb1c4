"""The wire: from arrays to one or several Triton servers and back, over gRPC or shared memory.

``security`` and ``channel`` open connections, ``messages`` are what travels, ``memory`` is shared
with a server on this machine, an ``endpoint`` is one address, and a ``pool`` chooses among several.
"""
