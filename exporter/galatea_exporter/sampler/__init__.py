"""Sampling of diffusion models without torch: schedules, samplers and the engine that runs them.

An export copies these files beside the ``model.py`` of a Triton model, where NumPy and Python 3.10
are all there is. So each of them imports nothing but NumPy and the standard library, and none
imports another.
"""
