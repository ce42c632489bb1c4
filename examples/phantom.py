"""Procedural phantoms of mammographic masses: image, mask and label from a seed.

Lengths are fractions of the image side, grey values run from 0 (black) to 1 (white) until the
final conversion to uint8. No patient data is involved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BENIGN, MALIGNANT = 0, 1

Floats = NDArray[np.float32]

_BLOCK = 64  # phantoms per block; part of what a seed means
_ANGLES = 1024  # bins of a mass outline


def phantoms(
    n: int, seed: int, size: int = 128
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Draw ``n`` phantoms; the same arguments give the same phantoms.

    Label 0 is benign: a smooth round or oval mass with a well-defined margin. Label 1 is
    malignant: an irregular mass with a brighter centre and thin radiating spicules.

    Returns:
        images uint8 [n, size, size], masks uint8 [n, size, size] (255 in the mass with its
        spicules, 0 elsewhere) and labels int64 [n].
    """
    rng = np.random.default_rng(seed)
    images = np.empty((n, size, size), np.uint8)
    masks = np.empty((n, size, size), np.uint8)
    labels = np.empty(n, np.int64)
    for start in range(0, n, _BLOCK):
        part = slice(start, min(start + _BLOCK, n))
        label = rng.integers(0, 2, _BLOCK)
        image = _tissue(rng, size)
        distance, radius = _mass(rng, label, size)
        pixels = distance * size
        malignant = (label == MALIGNANT)[:, None, None]
        # The margin of a benign mass is a pixel wide, that of a core is blurred a little.
        margin = 1 / (1 + np.exp(np.clip(pixels * 2.0, -30, 30)))
        contrast = np.where(label == MALIGNANT, 0.28, 0.30) + _uniform(rng, -0.04, 0.08, _BLOCK)
        centre = np.where(malignant, 0.30 * np.exp(-((radius / 0.10) ** 2)), 0.0)
        image = image * (1 - 0.5 * margin) + 0.5 * margin * 0.34
        image += margin * (contrast[:, None, None] + centre)
        count = part.stop - part.start
        images[part] = (np.clip(image, 0, 1) * 255).astype(np.uint8)[:count]
        masks[part] = np.where(distance < 0, 255, 0).astype(np.uint8)[:count]
        labels[part] = label[:count]
    return images, masks, labels


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    return (low + (high - low) * rng.random(shape, np.float32)).astype(np.float32)


def _grid(size: int) -> tuple[Floats, Floats]:
    """Pixel centres x [1, 1, size] and y [1, size, 1] as fractions of the side."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[None, None, :], axis[None, :, None]


def _tissue(rng: np.random.Generator, size: int) -> Floats:
    """Fibroglandular background [block, size, size]: 1/f^beta texture, gradient and strands."""
    beta = _uniform(rng, 1.6, 2.4, _BLOCK, 1, 1)
    stretch = _uniform(rng, 1.0, 1.5, _BLOCK, 1, 1)
    angle = _uniform(rng, 0, np.pi, _BLOCK, 1, 1)
    fx = np.fft.rfftfreq(size, 1 / size).astype(np.float32)[None, None, :]
    fy = np.fft.fftfreq(size, 1 / size).astype(np.float32)[None, :, None]
    along = (fx * np.cos(angle) + fy * np.sin(angle)) * stretch
    across = (fy * np.cos(angle) - fx * np.sin(angle)) / stretch
    power = along**2 + across**2
    # Frequencies in cycles per image side; the roll-off keeps the finest grain out.
    amplitude = np.exp(-0.5 * beta * np.log(power + 2.0) - power / 16.0**2)
    amplitude[:, 0, 0] = 0
    phase = rng.standard_normal((2, *amplitude.shape), np.float32)
    texture = np.fft.irfft2((phase[0] + 1j * phase[1]) * amplitude, s=(size, size))
    texture = (texture / texture.std(axis=(1, 2), keepdims=True)).astype(np.float32)

    x, y = _grid(size)
    tilt = _uniform(rng, -0.16, 0.16, 2, _BLOCK, 1, 1)
    level = _uniform(rng, 0.24, 0.38, _BLOCK, 1, 1)
    depth = _uniform(rng, 0.045, 0.085, _BLOCK, 1, 1)
    tissue: Floats = level + tilt[0] * (x - 0.5) + tilt[1] * (y - 0.5) + depth * texture
    for _ in range(2):
        turn = _uniform(rng, 0, 2 * np.pi, _BLOCK, 1, 1)
        offset, bend = _uniform(rng, -0.45, 0.45, _BLOCK, 1, 1), _uniform(rng, -1, 1, _BLOCK, 1, 1)
        t = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
        s = (y - 0.5) * np.cos(turn) - (x - 0.5) * np.sin(turn)
        gap = (s - offset - bend * t * t) / 0.012
        tissue += _uniform(rng, 0, 0.09, _BLOCK, 1, 1) * np.exp(-np.minimum(gap * gap, 30))
    return tissue


def _mass(rng: np.random.Generator, label: NDArray[np.int64], size: int) -> tuple[Floats, Floats]:
    """Distance to the margin, negative inside, and distance to the centre: [block, size, size]."""
    x, y = _grid(size)
    centre = _uniform(rng, 0.34, 0.66, 2, _BLOCK, 1, 1)
    dx, dy = x - centre[0], y - centre[1]
    radius = np.sqrt(dx * dx + dy * dy) + np.float32(1e-4)
    oval = _oval(rng)
    spiculated, irregular = _spiculated(rng)
    malignant = (label == MALIGNANT)[:, None]
    outline = np.where(malignant, spiculated, oval)
    core = np.where(malignant, irregular, oval)
    slope = (np.roll(outline, -1, 1) - np.roll(outline, 1, 1)) * (_ANGLES / (4 * np.pi))
    # A slight common curvature of the spicules.
    curl = _uniform(rng, -0.8, 0.8, _BLOCK, 1, 1)
    theta = np.arctan2(dy, dx) + curl * radius
    index = (theta * (_ANGLES / (2 * np.pi))).astype(np.int32) % _ANGLES
    row = np.arange(_BLOCK)[:, None, None]
    # First-order distance: the implicit function radius - outline(theta) over its gradient.
    gradient = np.sqrt(1 + (slope[row, index] / radius) ** 2)
    distance = (radius - outline[row, index]) / gradient
    # Inside the core the slopes of the spicules do not matter.
    return np.minimum(distance, radius - core[row, index]), radius


def _oval(rng: np.random.Generator) -> Floats:
    """Outlines [block, angles] of ellipses."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False, dtype=np.float32)
    major = _uniform(rng, 0.12, 0.23, _BLOCK, 1)
    ratio = _uniform(rng, 0.65, 1.0, _BLOCK, 1)
    turned = angle - _uniform(rng, 0, np.pi, _BLOCK, 1)
    outline: Floats = major / np.sqrt(np.cos(turned) ** 2 + (np.sin(turned) / ratio) ** 2)
    return outline


def _spiculated(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Outlines [block, angles] of irregular cores, with and without 9 to 14 tapering spicules."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False, dtype=np.float32)
    scale = _uniform(rng, 0.75, 1.25, _BLOCK, 1)
    outline = np.full((_BLOCK, _ANGLES), 1, np.float32)
    for k in range(2, 6):
        wave = np.cos(k * angle + _uniform(rng, 0, 2 * np.pi, _BLOCK, 1))
        outline += _uniform(rng, 0, 0.13, _BLOCK, 1) * wave
    outline *= 0.1 * scale
    core = outline.copy()
    count = rng.integers(9, 15, (_BLOCK, 1))
    for k in range(14):
        at = 2 * np.pi * (k + _uniform(rng, -0.35, 0.35, _BLOCK, 1)) / count
        length = scale * _uniform(rng, 0.18, 0.32, _BLOCK, 1)
        width = scale * _uniform(rng, 0.018, 0.026, _BLOCK, 1)
        apart = np.abs((angle - at + np.pi) % (2 * np.pi) - np.pi)
        # A spicule of half-width width * (1 - r / length) at radius r, solved for r.
        spicule = 1 / (apart / width + 1 / length)
        outline = np.maximum(outline, np.where(k < count, spicule, np.float32(0)))
    return outline, core
