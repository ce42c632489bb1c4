"""What may be imported when, and that a base install can show every help."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from galatea.cli import COMMANDS
from support import ROOT

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "PIL",
    "rich",
    "pydicom",
    "nibabel",
    "highdicom",
    "pyarrow",
    "fsspec",
    "s3fs",
    "opentelemetry",
    "prometheus_client",
    "docker",
    "matplotlib",
    "starlette",
    "uvicorn",
    "galatea_exporter",
)

UTILITY = ["evaluate", "utility", "x", "--real", "."]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = f"import sys, galatea; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_the_command_line_loads_nothing_heavy_to_start() -> None:
    code = f"import sys, galatea.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("package", ["client/galatea", "server/galatea_server"])
def test_client_and_server_never_import_the_exporter(package: str) -> None:
    allowed = {"client/galatea/cli/demo.py", "client/galatea/cli/__init__.py"}
    for path in (ROOT / package).rglob("*.py"):
        if path.relative_to(ROOT).as_posix() not in allowed:
            imports = re.findall(r"^\s*(?:import|from) (\S+)", path.read_text(), re.MULTILINE)
            assert not [name for name in imports if name.startswith("galatea_exporter")], path


@pytest.fixture(scope="session")
def base_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its dependencies, and no extra."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder / "dist", ROOT], check=True)
    (wheel,) = (folder / "dist").glob("galatea-*.whl")
    subprocess.run([*pip, "install", wheel], check=True)
    return folder / "venv"


def run(base_install: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [base_install / "bin" / "galatea", *arguments], capture_output=True, text=True, check=False
    )


def test_a_base_install_has_no_heavy_package(base_install: Path) -> None:
    (site,) = (base_install / "lib").glob("python3.*/site-packages")
    installed = {path.name.partition("-")[0] for path in site.iterdir()}
    assert not {"torch", "onnx", "onnxruntime", "gevent", "aiohttp", "pytriton"} & installed


@pytest.mark.parametrize(
    "command",
    ["", *COMMANDS, "repo verify", "repo activate", "repo forget", "repo pull",
     "engine build", "evaluate run", "evaluate compare", "evaluate utility", "extractor import",
     "extractor list", "dataset info", "dataset verify", "dataset merge", "dataset regenerate"],
)  # fmt: skip
def test_every_help_works_in_a_base_install(base_install: Path, command: str) -> None:
    done = run(base_install, *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: galatea")


def test_every_module_of_the_client_imports_in_a_base_install(base_install: Path) -> None:
    modules = [
        path.relative_to(ROOT / "client").with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "client" / "galatea").rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    ]
    # These are for those who have the extra.
    modules = [name for name in modules if name != "galatea.torch" and ".ui." not in name]
    code = f"import importlib; [importlib.import_module(name) for name in {modules!r}]"
    subprocess.run([base_install / "bin" / "python", "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["families"], "export"),
        (["export", "dcgan_mammo", "x.pt", "--name", "x"], "export"),
        (["import", "00001"], "export"),
        (["serve", "--repository", "."], "serve"),
        (["tune", "x"], "serve"),
        (["extractor", "list"], "export"),
        ([*UTILITY, "--task", "classify", "--intensity", "levels"], "utility"),
        (["new-family", "x", "x.pt"], "export"),
        (["ui"], "ui"),
        (["publish", "x", "--check"], "publish"),
        (
            ["evaluate", "run", "x", "--real", ".", "--extractor", "x", "--intensity", "minmax"],
            "eval",
        ),
        (["generate", "x", "-n", "1", "-o", "s3://b/x"], "s3"),
        (["generate", "x", "-n", "1", "-o", "x", "--format", "parquet"], "parquet"),
        (["generate", "x", "-n", "1", "-o", "x", "--format", "dicom"], "dicom"),
        (["generate", "x", "-n", "1", "-o", "x", "--format", "nifti"], "nifti"),
        (["demo", "--examples", str(ROOT / "examples")], "export"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(
    base_install: Path, arguments: list[str], extra: str
) -> None:
    done = run(base_install, *arguments)
    assert done.returncode == 1
    assert f"pip install 'galatea[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_of_a_base_install_says_what_is_missing(base_install: Path) -> None:
    done = run(base_install, "doctor")
    assert done.returncode == 1
    assert "pip install 'galatea[serve]'" in done.stdout
    assert "Traceback" not in done.stderr
