"""medigan in an environment of its own, with a model where it keeps what it has downloaded.

medigan 1.0.0 names its dependencies without versions, so it is installed as it is, with the release
of PyTorch that galatea is measured with. Two packages come beside it: OpenCV, which its models ask
for, and setuptools below 81, because it imports ``pkg_resources``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

from measure import note

MODEL = "00000_DCGAN"
OPENCV = "opencv-contrib-python-headless"
REQUIREMENTS = ("medigan==1.0.0", f"torch=={version('torch')}", OPENCV, "setuptools<81")
TOLD = ("medigan", "torch", "numpy", OPENCV)
PACKAGE = Path(__file__).parent / "callers" / "medigan_package.py"

# medigan's own table of a model, with what its executor reads of it.
EXECUTION = {
    "package_name": MODEL,
    "package_link": "",  # nothing is downloaded: the package is there
    "model_name": "DCGAN",
    "extension": ".pt",
    "image_size": [128, 128],
    "dependencies": ["numpy", "torch", OPENCV],
    "generate_method": {
        "name": "generate",
        "args": {
            "base": ["model_file", "num_samples", "output_path", "save_images"],
            "custom": {},
        },
    },
}


def environment() -> Path:
    """The interpreter of medigan's environment, made in the cache folder if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "galatea" / "peer"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
        note(f"installing medigan into {folder}")
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        stamp.write_text(wanted, "utf-8")
    return python


def told(python: Path) -> dict[str, str]:
    """Distribution → its version in medigan's environment."""
    code = f"from importlib.metadata import version; print(*map(version, {TOLD}))"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return dict(zip(TOLD, done.stdout.split(), strict=True))


def workspace(folder: Path, checkpoint: Path) -> Path:
    """A folder as medigan leaves it when it has downloaded its configuration and a model."""
    package = folder / "models" / MODEL / MODEL
    package.mkdir(parents=True)
    shutil.copy(PACKAGE, package / "__init__.py")
    shutil.copy(checkpoint, package / "DCGAN.pt")
    config = folder / "config" / "global.json"
    config.parent.mkdir()
    table = {MODEL: {"execution": EXECUTION, "selection": {}, "description": {}}}
    config.write_text(json.dumps(table), "utf-8")
    return folder
