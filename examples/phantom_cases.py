"""Write procedural phantoms as cases of patients, for ``galatea evaluate utility``.

::

    python examples/phantom_cases.py real --patients 60 --images 4 --seed 1

writes ``real/IMAGE.png``, ``real/IMAGE-mask.png`` and ``real/cases.csv`` with the columns image,
patient, label and mask. The phantoms of a patient have nothing more in common than others have.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from PIL import Image

from phantom import phantoms

LABELS = ("benign", "malignant")


def write_cases(folder: Path, patients: int, per_patient: int, seed: int, size: int = 128) -> Path:
    """Writes phantoms and their table; returns the path of the table.

    Args:
        patients: how many.
        per_patient: phantoms of each.
        seed: of the phantoms; the demo generators have learned from seed 0.
        size: side of a phantom in pixels.
    """
    images, masks, labels = phantoms(patients * per_patient, seed, size)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cases.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "patient", "label", "mask"))
        for i, (image, mask, label) in enumerate(zip(images, masks, labels, strict=True)):
            names = f"{i:05d}.png", f"{i:05d}-mask.png"
            for name, pixels in zip(names, (image, mask), strict=True):
                Image.fromarray(pixels).save(folder / name)
            table.writerow((names[0], f"patient {i // per_patient}", LABELS[label], names[1]))
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--images", type=int, default=4, help="of each patient")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    print(write_cases(options.folder, options.patients, options.images, options.seed, options.size))


if __name__ == "__main__":
    main()
