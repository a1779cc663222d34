"""What get_config and show_config tell."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

import fastadam
from fastadam import configuration
from fastadam.kernels.cpu import _cpu_features, _openmp, engine


def test_it_names_the_versions_and_the_machine():
    config = fastadam.get_config()
    assert config["fastadam"] == fastadam.__version__
    assert config["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert config["numpy"] == np.__version__
    assert config["platform"] == platform.platform()
    aliases = {"arm64": "aarch64"}
    assert config["machine"] == aliases.get(platform.machine(), platform.machine())
    assert str(config["compiler"]).split()[0] in {"gcc", "clang", "Apple"}


def test_it_tells_what_the_kernels_use():
    config = fastadam.get_config()
    assert config["instruction_set"] == {
        "in_use": engine.instruction_set(),
        "built": list(engine.built_instruction_sets()),
        "supported": list(_cpu_features.supported()),
    }
    fastadam.set_num_threads(3)
    try:
        threads = fastadam.get_config()["threads"]
    finally:
        fastadam.set_num_threads(None)
    assert threads["in_use"] == threads["set_by_hand"] == 3
    assert threads["openmp_max"] == _openmp.max_threads()


def test_it_is_ready_for_json():
    config = fastadam.get_config()
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize(
    ("date", "expected"),
    [(0, "not built"), (201511, "4.5 (201511)"), (209912, "unknown version (209912)")],
)
def test_the_version_of_openmp(monkeypatch, date, expected):
    monkeypatch.setattr(configuration._openmp, "version", lambda: date)
    assert fastadam.get_config()["openmp"] == expected


def test_the_openmp_of_this_build_has_a_name():
    if not _openmp.version():
        pytest.skip("this build has no OpenMP")
    assert "unknown" not in str(fastadam.get_config()["openmp"])


def test_the_environment_holds_fastadam_s_variables_only(monkeypatch):
    for name in [name for name in os.environ if name.startswith("FASTADAM_")]:
        monkeypatch.delenv(name)
    assert fastadam.get_config()["environment"] == {}
    monkeypatch.setenv("FASTADAM_ISA", "baseline")
    monkeypatch.setenv("NOT_FASTADAM", "1")
    assert fastadam.get_config()["environment"] == {"FASTADAM_ISA": "baseline"}


def test_cupy_is_found_without_importing_it(tmp_path):
    # a distribution of CuPy whose module would fail the import
    info = tmp_path / "cupy_cuda12x-14.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cupy-cuda12x\nVersion: 14.2.0\n")
    (tmp_path / "cupy.py").write_text("raise AssertionError('imported')\n")
    code = "import fastadam; print(fastadam.get_config()['gpu'])"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert printed.stdout == "cupy 14.2.0\n"


def test_without_cupy_it_says_so(monkeypatch):
    def version(name):
        raise configuration.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(configuration.importlib.metadata, "version", version)
    assert fastadam.get_config()["gpu"] == "cupy not installed"


def test_show_config_prints_every_entry_aligned(monkeypatch, capsys):
    monkeypatch.setenv("FASTADAM_EXAMPLE", "a: b")
    assert fastadam.show_config() is None
    lines = capsys.readouterr().out.splitlines()
    printed = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines}
    config = fastadam.get_config()
    for key in ("fastadam", "python", "numpy", "platform", "machine", "compiler", "openmp", "gpu"):
        assert printed[key] == config[key]
    assert printed["instruction set, in use"] == engine.instruction_set()
    assert printed["instruction set, built"] == ", ".join(engine.built_instruction_sets())
    assert printed["threads, set by hand"] == "none"
    assert printed["FASTADAM_EXAMPLE"] == "a: b"
    # the values begin in one column
    columns = {len(line) - len(line.split(":", 1)[1].lstrip()) for line in lines}
    assert len(columns) == 1
