"""The choice of the instruction set and of the number of threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import step_of

import fastadam
from fastadam import kernels
from fastadam.algorithms.adam import ADAM
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels import multi_tensor
from fastadam.kernels.cpu import _cpu_features, _threads, engine, threads
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.table import TENSOR

USABLE = [name for name in engine.built_instruction_sets() if name in _cpu_features.supported()]
STEP = step_coefficients(
    {"alpha": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "eta": 0.9}
    | {"weight_decay_rate": 0.1, "amsgrad": False, "adabound": False},
    1,
)


def imported_with(isa: str) -> subprocess.CompletedProcess[str]:
    """Import the CPU engine in a new process with FASTADAM_ISA set."""
    code = (
        "from fastadam.kernels.cpu.engine import _chosen, _kernels as k; print(_chosen, k.__name__)"
    )
    environ = {**os.environ, "FASTADAM_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )


@pytest.mark.parametrize("isa", USABLE)
def test_forced_instruction_set(isa: str) -> None:
    module = {"baseline": "_step"}.get(isa, f"_step_{isa}")
    assert imported_with(isa).stdout.split() == [isa, f"fastadam.kernels.cpu.{module}"]


def test_unset_and_empty_mean_automatic() -> None:
    assert engine._choose({}) == engine._choose({"FASTADAM_ISA": ""})
    assert engine._choose({}) in USABLE


def test_best_of_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu_features, "built", lambda: ("baseline", "avx2", "avx512"))
    for supported, full_speed, best in [
        (("baseline",), False, "baseline"),
        (("baseline", "avx2"), False, "avx2"),
        (("baseline", "avx2", "avx512"), False, "avx2"),
        (("baseline", "avx2", "avx512"), True, "avx512"),
    ]:
        monkeypatch.setattr(_cpu_features, "supported", lambda names=supported: names)
        monkeypatch.setattr(_cpu_features, "avx512_at_full_speed", lambda full=full_speed: full)
        assert engine._choose({}) == best


def test_avx512_where_it_is_slow_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu_features, "built", lambda: ("baseline", "avx2", "avx512"))
    monkeypatch.setattr(_cpu_features, "supported", lambda: ("baseline", "avx2", "avx512"))
    monkeypatch.setattr(_cpu_features, "avx512_at_full_speed", lambda: False)
    assert engine._choose({"FASTADAM_ISA": "avx512"}) == "avx512"


def test_an_instruction_set_that_is_not_built() -> None:
    result = imported_with("sse9")
    assert result.returncode == 1
    assert "ImportError: FASTADAM_ISA=sse9: this build does not have it" in result.stderr
    assert ", ".join(USABLE) in result.stderr


def test_an_instruction_set_that_this_cpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu_features, "built", lambda: ("baseline", "avx2", "avx512"))
    monkeypatch.setattr(_cpu_features, "supported", lambda: ("baseline",))
    with pytest.raises(ImportError, match=r"avx2: this CPU does not run it.*works here: baseline"):
        engine._choose({"FASTADAM_ISA": "avx2"})


def test_missing_kernels_of_an_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa, module in {"avx2": "_step_avx2", "avx512": "_step_avx512"}.items():
        monkeypatch.delattr(kernels.cpu, module, raising=False)
        monkeypatch.setitem(sys.modules, f"fastadam.kernels.cpu.{module}", None)
        with pytest.raises(ImportError, match=rf"for {isa} .*{module}.*install fastadam again"):
            engine._load(isa)


@pytest.mark.parametrize("missing", ["*.so", "_step.*.so"])
def test_a_source_tree_that_is_not_built_says_what_to_do(tmp_path: Path, missing: str) -> None:
    package = Path(fastadam.__file__).parent
    ignored = shutil.ignore_patterns(missing, "__pycache__")
    shutil.copytree(package, tmp_path / "fastadam", ignore=ignored)
    result = subprocess.run(
        [sys.executable, "-c", "import fastadam"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"missing from {tmp_path}" in result.stderr
    assert "pip install -e ." in result.stderr


class Recorder:
    """Stands in for the compiled loops and remembers the number of threads."""

    def __init__(self) -> None:
        self.n_threads: list[int] = []

    def adam_float32(self, table: object, scalars: object, n_threads: int, ops: object) -> None:
        """Remember."""
        self.n_threads.append(n_threads)

    adam_float64 = adam_float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_models_are_stepped_by_one_thread(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(engine, "_kernels", recorder)
    monkeypatch.setattr(_threads, "number", lambda: 5)
    for sizes in [
        (_threads.SERIAL_BELOW - 1,),
        (_threads.SERIAL_BELOW,),
        (_threads.SERIAL_BELOW // 2,) * 2,
    ]:
        table = np.zeros(len(sizes), TENSOR)
        table["n"] = sizes
        table["start"] = np.cumsum([0, *sizes[:-1]])
        engine.run(table, np.zeros((1, len(ADAM.scalars)), dtype))
    assert recorder.n_threads == [1, 5, 5]


def test_set_num_threads_reaches_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[int]] = []
    real = multi_tensor.step_and_commit

    def noted(tables: Any, n_threads: list[int], *others: Any) -> None:
        found.append(n_threads)
        real(tables, n_threads, *others)

    monkeypatch.setattr(multi_tensor, "step_and_commit", noted)
    steps = [step_of("p", *np.ones((4, _threads.SERIAL_BELOW)), None, STEP)]
    steps.append(step_of("q", *np.ones((4, _threads.SERIAL_BELOW - 1), "f4"), None, STEP))
    try:
        for n in (1, 3, 7):
            threads.set_num_threads(n)
            adam_batch(steps)
    finally:
        threads.set_num_threads(None)
    assert found == [[1, 1], [3, 1], [7, 1]]
