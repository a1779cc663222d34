"""``bench --cuda`` and the memory of the GPU: what is taken, given back and left out."""

from __future__ import annotations

import json
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastadam.__main__ import main
from fastadam.bench import arrays, cases, cuda_arrays, cuda_ceilings, cuda_plans, plans, ratios
from fastadam.bench.cuda import Cuda
from fastadam.bench.timing import Plan

ARGV = ["bench", "--cuda", "--cases", "tiny", "--rounds", "2", "--quick"]
SHORT = Plan(rounds=2, block_s=0.0, settle_s=0.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure on next to nothing."""
    monkeypatch.setattr(plans, "QUICK", plans.QUICK._replace(plan=SHORT))
    monkeypatch.setattr(cuda_plans, "QUICK", cuda_plans.Size(4096, (1, 3)))


class Held:
    """Memory of the GPU's."""


def test_memory_is_given_back_after_a_failure(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    roster = Cuda(["fastadam"])
    held: list[Any] = []
    released: list[object] = []
    monkeypatch.setattr(Cuda, "release", lambda _: released.append(held[-1]()))

    def broken() -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        raise MemoryError("out of the GPU's memory")

    def well() -> int:
        mine = [Held()]
        mine.append(mine)  # type: ignore[arg-type]
        held.append(weakref.ref(mine[0]))
        return 1

    assert plans.attempt(roster, "host", "1", "adamw", None, 1, broken) is None
    assert plans.attempt(roster, "host", "1", "adamw", None, 1, well) == 1
    # there was nothing left then
    assert released == [None, None]
    assert roster.failed == ["host: 1, adamw, its own dtypes, on a GPU"]


def test_free_memory_is_also_what_is_kept_for_nobody(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = Cuda(["fastadam"])
    gpu: dict[str, Any] = {"is_available": lambda: True}
    gpu |= {"memory_reserved": lambda: 5_000, "memory_allocated": lambda: 2_000}
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (1 << 20, 1 << 34))
    monkeypatch.setitem(sys.modules, "torch", None)
    without = roster.free_bytes()
    assert without is not None
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(**gpu)))
    assert roster.free_bytes() == without + 3_000


def test_contenders_that_do_not_fit_are_left_out_from_the_last_on(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*ARGV, "--what", "ratios", "--contenders", "fastadam-graph,chainer", "--json"]
    case = cases.CASES["tiny"]()
    for n, named in ((3, []), (2, ["chainer"]), (1, ["fastadam-graph", "chainer"])):
        # and not a byte more
        free = Cuda(["fastadam"]).needed_bytes(case, None, "adamw", n) + ratios.RESERVE
        monkeypatch.setattr(Cuda, "free_bytes", lambda _, free=free: free)
        assert main(argv) == 0
        result = json.loads(capsys.readouterr().out)
        assert [one["what"] for one in result["left_out"]] == named
        assert all("too little memory" in one["why"] for one in result["left_out"])
        assert all(one["where"][0].startswith("tiny") for one in result["left_out"])
        (row,) = result["results"]["ratios"]
        assert list(row["difference"]) == ["fastadam-graph", "chainer"][: n - 1]


def test_ceilings_take_what_memory_there_is(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_ceilings, "_LEAST", 1024)
    argv = [*ARGV, "--what", "ceilings", "--contenders", "fastadam", "--json"]
    for elements in (1024, 1020):
        free = ratios.RESERVE + 28 * elements + 27
        monkeypatch.setattr(Cuda, "free_bytes", lambda _, free=free: free)
        assert main(argv) == 0
        result = json.loads(capsys.readouterr().out)
        if elements == 1024:
            assert result["results"]["ceilings"][0]["elements"] == 1024
            assert result["left_out"] == []
    assert result["results"]["ceilings"] == []
    assert result["left_out"][0]["why"] == "there is no memory for 1,024 elements"
    assert result["failed"] == []


@pytest.mark.parametrize("n", [1, 6, 4 * (1 << 16) - 1, 4 * (1 << 16), 3_000_001])
def test_what_is_moved_is_no_zeros(cupy: Any, n: int) -> None:
    made = cuda_arrays.repeated(n)
    assert (made.dtype, made.shape) == (np.uint8, (n,))
    (block,) = arrays.gradients(cases.one(1 << 16, "one"), "float32")
    expected = np.resize(block.view(np.uint8), n)
    np.testing.assert_array_equal(made.get(), expected)


def test_too_little_memory_is_said(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (1 << 20, 1 << 34))
    assert main([*ARGV, "--what", "ratios,norm", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["results"] == {"ratios": [], "norm": []}
    why = [one["why"] for one in result["left_out"] if one["why"].startswith("needs about")]
    assert len(why) == 2
