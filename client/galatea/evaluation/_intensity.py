"""From pixels in any units to the 8-bit colours that extractors take, by a rule that is named.

Published distances cannot be reproduced where this step was not told. So there is no default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galatea.errors import InvalidInput
from galatea.pictures import Picture
from galatea.pictures._picture import stretch

__all__ = ["RULES", "Intensity"]

RULES = ("levels", "display", "minmax", "percentile:LOW:HIGH", "window:LOW:HIGH")
ENDS = {"levels": 0, "display": 0, "minmax": 0, "percentile": 2, "window": 2}


@dataclass(frozen=True)
class Intensity:
    """How values become levels 0 … 255.

    Attributes:
        kind: "levels" takes 8-bit pixels as they are and refuses others; "display" does what the
            file asks for, such as a DICOM window, and takes 8-bit pixels as they are; "minmax"
            stretches each image from its smallest to its largest value, "percentile" from one of
            its percentiles to another; "window" maps the same two values of every image, in the
            units of the file.
        ends: of "percentile" and "window".
    """

    kind: str
    ends: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Intensity:
        """The rule that a text means, such as ``percentile:1:99``.

        Raises:
            InvalidInput: none.
        """
        kind, *parts = text.split(":")
        try:
            ends = tuple(float(part) for part in parts)
        except ValueError:
            ends = ()
        if len(ends) != ENDS.get(kind, -1) or (ends and not ends[0] < ends[1]):
            raise InvalidInput(
                f"{text!r} is no rule for intensities", f"choose one of: {', '.join(RULES)}"
            )
        if kind == "percentile" and not (ends[0] >= 0 and ends[1] <= 100):
            raise InvalidInput(f"{text!r} has no such percentiles", "give two from 0 to 100")
        return cls(kind, ends)

    def __str__(self) -> str:
        return ":".join([self.kind, *(f"{end:g}" for end in self.ends)])

    def apply(self, picture: Picture) -> NDArray[np.uint8]:
        """A picture as colours, uint8 [H, W, 3]; grey ones three times.

        Raises:
            InvalidInput: it is neither grey nor RGB, or the rule is not for such pixels; the
                picture is named.
        """
        levels = self._levels(picture)
        levels = levels[:, :, None] if levels.ndim == 2 else levels
        if levels.shape[2] not in (1, 3):
            raise InvalidInput(
                f"{picture.name}: {levels.shape[2]} channels are no colours",
                "give grey or RGB images; evaluate channels that are quantities one by one",
            )
        colours: NDArray[np.uint8] = np.broadcast_to(levels, (*levels.shape[:2], 3))
        return colours

    def _levels(self, picture: Picture) -> NDArray[np.uint8]:
        pixels = picture.pixels
        if self.kind in ("levels", "display"):
            if self.kind == "display" and picture.levels is not None:
                return picture.levels
            if pixels.dtype != np.uint8:
                raise InvalidInput(
                    f"{picture.name}: {pixels.dtype} pixels are no levels from 0 to 255",
                    "choose another rule for the intensities: minmax, percentile or window",
                )
            return picture.to_levels()
        if self.kind == "minmax":
            low, high = float(pixels.min()), float(pixels.max())
        elif self.kind == "percentile":
            low, high = map(float, np.percentile(pixels, self.ends))
        else:
            low, high = self.ends
        return stretch(pixels, low, high)
