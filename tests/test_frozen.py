"""Programs that PyInstaller and its like put into one folder: what is imported can be found."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastadam

PACKAGE = Path(fastadam.__file__).parent

# Commands, which are no part of a program, ask for libraries by name; and so do these for a module
# that is always there, and for CuPy, Chainer and what needs PyTorch, which are large: who
# wants them imports them.
BY_NAME = {
    "fastadam/update/interrupt.py": {"_signal"},
    "fastadam/kernels/backend.py": {"cupy"},
    "fastadam/__init__.py": {"fastadam.torch"},
    "fastadam/chainer/__init__.py": {"chainer"},
}

PROGRAM = """\
import json, sys
import numpy as np
import fastadam
from fastadam import optimizer_hooks
params = {"w": np.ones(5000, np.float32), "b": np.zeros(3)}
opt = fastadam.AdamW(alpha=0.1).setup(params)
opt.add_hook(optimizer_hooks.GradientClipping(1.0))
for _ in range(3):
    opt.apply_gradients({"w": params["w"], "b": np.ones(3)})
fastadam.save(sys.argv[1], opt)
fastadam.load(sys.argv[1], opt)
print(json.dumps([type(opt).__name__, opt.t, fastadam.get_config()["instruction_set"]["in_use"],
                  float(params["w"][0]), "fastadam.bench" in sys.modules]))
"""


def imports(path: Path) -> set[str]:
    """Return what a module imports, anywhere in it, as tools find it that only read."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    # the packages that a module is in come with it
    return {name.rsplit(".", n)[0] for name in found for n in range(name.count(".") + 1)}


def reached(start: Path) -> set[str]:
    """Return the names of all modules that a module imports, and those that these import."""
    seen: set[str] = set()
    waiting = {start}
    while waiting:
        for name in imports(waiting.pop()) - seen:
            seen.add(name)
            if name.partition(".")[0] != "fastadam":
                # where it is installed, others are beside it
                continue
            path = PACKAGE.parent.joinpath(*name.split("."))
            waiting |= {p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()}
    return seen


def test_every_extension_is_imported_where_tools_look() -> None:
    built = {
        ".".join([*path.relative_to(PACKAGE.parent).parts[:-1], path.name.partition(".")[0]])
        for path in PACKAGE.rglob("*")
        if path.suffix in (".so", ".pyx")
    }
    assert {"fastadam.kernels.cpu._tensors", "fastadam.kernels.cpu._step_avx512"} <= built
    # who imports fastadam.torch, which needs PyTorch, has it
    built = {name for name in built if not name.startswith("fastadam.torch.")}
    # the copy of memory that steps are timed beside belongs to the command `bench`
    assert built - reached(PACKAGE / "__init__.py") == {"fastadam.kernels.cpu._floor"}
    assert built <= reached(PACKAGE / "__main__.py")
    of_torch = reached(PACKAGE / "torch" / "__init__.py")
    assert {f"fastadam.torch.{name}" for name in ("_items", "_reading", "_tensors")} <= of_torch
    assert {"h5py", "ml_dtypes"} <= reached(PACKAGE / "__init__.py")


def test_nothing_else_is_imported_by_name() -> None:
    commands = reached(PACKAGE / "__main__.py") - reached(PACKAGE / "__init__.py")
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE.parent).as_posix()
        module = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if module in commands or module in ("fastadam.cli.extras", "fastadam.__main__"):
            continue
        named = {
            ast.literal_eval(node.args[0])
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__")
        }
        assert named == BY_NAME.get(relative, set()), relative


@pytest.mark.slow
def test_a_frozen_program(tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller", reason="needs PyInstaller, as in the environment 'frozen'")
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--onedir", "--log-level", "ERROR", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        check=True,
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTADAM"))}
    frozen = str(tmp_path / "dist" / "train" / "train")
    results = []
    suffixes = [".npz"]
    try:
        import h5py  # noqa: F401

        suffixes.append(".h5")
    except ImportError:
        pass
    for isa in fastadam.get_config()["instruction_set"]["supported"]:
        for suffix in suffixes:
            for program in ([frozen], [sys.executable, str(script)]):
                path = "" if program[0] == frozen else str(PACKAGE.parent)
                done = subprocess.run(
                    [*program, str(tmp_path / f"run{suffix}")],
                    cwd=tmp_path,
                    env={**clean, "FASTADAM_ISA": isa} | ({"PYTHONPATH": path} if path else {}),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                results.append(json.loads(done.stdout))
                assert results[-1][2] == isa
    assert {(name, t, value, commands) for name, t, _, value, commands in results} == {
        ("AdamW", 3, results[0][3], False)
    }
