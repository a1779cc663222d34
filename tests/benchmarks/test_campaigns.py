"""The campaigns measure what they say, and lay it out."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import campaigns
import chain
import memory
import numpy as np
import pytest
import subnormal
import sweep

from fastadam.bench import arrays, contender, own, plans
from fastadam.bench.cases import Case, Tensor, one
from fastadam.bench.command import Bench
from fastadam.bench.libraries import TorchFused
from fastadam.bench.peers import CONTENDERS, Roster
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan
from fastadam.kernels.cpu.threads import set_num_threads

SHORT = Plan(rounds=2, block_s=0.0, settle_s=0.0)
TINY = ["--contenders", "fastadam,fastadam-link,numpy", "--rounds", "2", "--quick"]
TINY += ["--cases", "tiny"]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Measure on next to nothing; contenders set the threads of the process."""
    monkeypatch.setattr(plans, "QUICK", plans.QUICK._replace(plan=SHORT, host=20))
    monkeypatch.setattr(campaigns, "QUICK", campaigns.Elements(1000, 100, 2000))
    yield
    set_num_threads(None)


@pytest.mark.slow
def test_everything(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON, and then what has been measured as text."""
    argv = [*TINY, "--what", "host,chain,memory,subnormal,sweep", "--threads", "1,2"]
    assert campaigns.main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["targets"] == []
    assert result["left_out"] == []
    results = result["results"]
    rows = {what: len(rows) for what, rows in results.items()}
    assert rows == {"host": 4, "chain": 2, "memory": 6, "subnormal": 2, "sweep": 2}
    for measured in results["sweep"]:
        points = [(point["elements"], point["tensors"]) for point in measured["points"]]
        assert points == [(1000, 1), (1000, 100), (2000, 1), (2000, 100)]
        assert measured["regions"][-1] == {"name": "memory", "up_to": None}
    monkeypatch.setattr(Bench, "measure", lambda self, args: result)
    png = tmp_path / "chart.png"
    pytest.importorskip("matplotlib", reason="needs matplotlib, of the extra 'bench'")
    assert campaigns.main([*argv, "--png", str(png)]) == 0
    assert struct.unpack(">II", png.read_bytes()[16:24])[1] > 1500
    out = capsys.readouterr().out
    for text in (
        "fastadam-chain beside its plain step: ",
        "memory that an update takes: adamw, float32",
        "fastadam: subnormal beside normal state ",
        "nanoseconds for an element: adamw, float32",
        "what the time of one tensor is: overhead ",
    ):
        assert text in out


def test_the_chain_clips_unscales_and_skips() -> None:
    p = [np.ones(4, np.float32)]
    clipped = chain.FastadamScaledChain(VARIANTS["adam"], p)
    clipped.give([np.full(4, 3 * 1024, np.float32)])
    clipped.step()
    report = clipped.optimizer.last_update
    assert report is not None
    assert report.grad_norm == pytest.approx(6.0)
    state = subnormal.states(clipped)
    # the norm of what was stepped with is 1
    np.testing.assert_allclose(state[0], 0.1 * 0.5, rtol=1e-6)
    clipped.give([np.array([1, np.inf, 1, 1], np.float32)])
    before = p[0].copy()
    clipped.step()
    np.testing.assert_array_equal(p[0], before)
    with pytest.raises(contender.NotComparable):
        contender.check(own.FastadamArrays, VARIANTS["adam"], "float32", chain.prepare)


def test_torchs_chain_is_the_same_chain() -> None:
    pytest.importorskip("torch", reason="needs torch")
    for dtype in ("float32", "float64"):
        difference = contender.check(chain.TorchChain, VARIANTS["adamw"], dtype, chain.prepare)
        assert difference < 1e-4


def test_chains_are_compared() -> None:
    case = Case("small", (Tensor("a", (3, 4)),))
    row = chain.compare_chains(Roster(["fastadam"]), case, "adamw", "float32", 1, SHORT)
    assert row is not None
    assert list(row["times_us"]) == ["fastadam", "fastadam-chain", "fastadam-chain-1024"]
    assert row["chain_beside_plain"].keys() == {"fastadam-chain", "fastadam-chain-1024"}


def test_extra_memory_sees_temporary_arrays() -> None:
    roster = Roster(["fastadam", "numpy"])
    ours, numpy = memory.extra_memory(roster, 300_000, "adam", "float32", 1)
    assert (ours["contender"], numpy["contender"]) == ("fastadam", "numpy")
    assert ours["allocated"] < 100_000
    # at least one array as large as the parameter
    assert numpy["allocated"] >= 4 * 300_000
    for row in (ours, numpy):
        assert row["resident"] is None or row["resident"] >= 0


def test_subnormal_state_is_subnormal_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, ...]] = []

    class Watched(own.FastadamArrays):
        def step(self) -> None:
            if self.optimizer.t:
                tiny = np.finfo(np.float32).tiny
                kept = subnormal.states(self)
                seen.append(tuple(bool(np.all((a > 0) & (a < tiny))) for a in kept))
            super().step()

    monkeypatch.setitem(CONTENDERS, "fastadam", Watched)
    monkeypatch.setattr(subnormal, "FastadamArrays", Watched)
    row = subnormal.compare_states(Roster(["fastadam"]), 50, "adam", "float32", 1, SHORT)
    assert row["beside_normal"].keys() == {"fastadam"}
    assert row["times_us"].keys() == {"fastadam", "fastadam-subnormal"}
    assert (True, True) in seen
    assert (False, False) in seen
    assert (True, False) not in seen


def test_torchs_state_is_filled() -> None:
    pytest.importorskip("torch", reason="needs torch")
    stepped = TorchFused(VARIANTS["adam"], arrays.parameters(one(10, "ten"), "float32"))
    stepped.give(arrays.gradients(one(10, "ten"), "float32"))
    stepped.step()
    for array in subnormal.states(stepped):
        array.fill(7)
    (state,) = stepped.optimizer.state.values()
    assert float(state["exp_avg"].min()) == float(state["exp_avg_sq"].max()) == 7.0


def test_regions_are_named_by_where_they_end() -> None:
    points = [
        {"elements": n, "tensors": 1, "us": {"fastadam": 4.0 + n / 5000}}
        for n in sweep.sizes(10_000_000)
    ]
    caches = {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 25}
    assert sweep.regions(points, 16, 2, caches) == [
        {"name": "overhead", "up_to": 50_000},
        {"name": "L2", "up_to": (1 << 21) // 16},
        {"name": "L3", "up_to": (1 << 25) // 16},
        {"name": "memory", "up_to": None},
    ]
    # without the sizes of caches, and with one that overhead hides
    unknown = sweep.regions(points, 16, 2, {})
    assert [r["name"] for r in unknown] == ["overhead", "L2", "L3", "memory"]
    assert [r["up_to"] for r in unknown] == [50_000, None, None, None]
    hidden = sweep.regions(points, 16, 1, {"L2": 1 << 16, "L3": 1 << 25})
    assert [r["name"] for r in hidden] == ["overhead", "L3", "memory"]


def test_sizes_of_a_sweep() -> None:
    assert sweep.sizes(100_000_000)[-1] == 100_000_000
    assert sweep.sizes(999) == []


def test_counts_of_memory(tmp_path: Path) -> None:
    status = tmp_path / "status"
    assert memory.resident("VmHWM", status) is None
    status.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    assert memory.resident("VmHWM", status) == 2048 * 1024
    assert memory.resident("VmRSS", status) == 1024 * 1024
    assert memory.resident("VmSwap", status) is None
