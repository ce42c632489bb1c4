"""Work with latents: what a generator makes its images of, before it does.

A generator that starts from a seed is served in stages: ``noise`` makes a latent z of the seed, a
StyleGAN's ``mapping`` makes styles w of that, one for each of its layers, and ``synthesis`` the
image. :meth:`galatea.Client.latent` runs the first ones, :meth:`galatea.Client.synthesise` the
rest, and between them :class:`Latents` can be interpolated, mixed and moved.

Three usual experiments are functions: :func:`walk`, :func:`truncation_sweep`, :func:`style_mixing`.
"""

from galatea.latents._calls import Space
from galatea.latents._experiments import style_mixing, truncation_sweep, walk
from galatea.latents._latents import Latents

__all__ = ["Latents", "Space", "style_mixing", "truncation_sweep", "walk"]
