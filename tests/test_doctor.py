"""The doctor tells what a machine lacks."""

from __future__ import annotations

import os
import venv
from pathlib import Path

from galatea_server import doctor, installation
from galatea_server.server import EmbeddedServer


def test_the_doctor_finds_this_machine_fit() -> None:
    findings = doctor.examine({"grpc": 0})
    assert [finding for finding in findings if finding.state == "fail"] == []


def test_the_doctor_names_each_illness_with_its_cure(plain: EmbeddedServer, tmp_path: Path) -> None:
    venv.create(tmp_path, symlinks=True)
    backends = installation.backend_directory(installation.locate_embedded(), tmp_path / "cache")
    copied = backends / "python" / "libtriton_python.so"
    sick = [
        doctor.check_numpy("2.1.0"),
        doctor.check_numpy(None),
        doctor.check_onnxruntime(str(tmp_path / "bin" / "python")),
        doctor.check_tritonclient(None),
        doctor.check_libraries([copied], {"PATH": os.defpath}),
        doctor.check_libpython(None),
        doctor.check_bash(None),
        doctor.check_port("grpc", plain.ports["grpc"]),
        doctor.check_shared_memory(Path("/proc")),
    ]
    assert [finding.state for finding in sick] == ["fail"] * len(sick)
    assert all(finding.remedy for finding in sick)
    assert "numpy<2" in sick[0].remedy
    assert "No module named 'onnxruntime'" in sick[2].fact
    assert "libarchive" in sick[4].fact
