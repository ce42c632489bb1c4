"""Whether a licence lets others have what was converted under it."""

from __future__ import annotations

import re

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

__all__ = ["objection"]

NO_DERIVATIVES = re.compile(r"-ND(-|$)")


def objection(licence: str) -> str | None:
    """Why weights under this licence cannot be published; None where they can.

    An export changes the format of the weights, so a licence must allow derivatives besides
    redistribution. Conditions on use (NonCommercial, ShareAlike) go along with the card.

    Args:
        licence: an SPDX expression, https://spdx.org/licenses.
    """
    if not licence.strip():
        return "no licence is told"
    try:
        expression = canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        return f"{licence!r} is no SPDX expression, so nobody can tell what it allows"
    for word in re.findall(r"[^\s()]+", expression):
        if word.startswith("LicenseRef-"):
            return (
                f"{word} is a licence of one's own: SPDX does not say whether it lets others "
                "redistribute a converted model"
            )
        if NO_DERIVATIVES.search(word):
            return f"{word} allows no derivatives, and a converted model is one"
    return None
