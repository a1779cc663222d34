"""Turns, medians, quartiles, ratios, and how they are laid out."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastadam.bench import machine, ratios, report, timing
from fastadam.bench.ratios import Spread, ratio, spread
from fastadam.bench.timing import Plan, Subject, measure


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 20])
def test_the_spread_is_numpys_percentiles(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).tolist()
    found = spread(values)
    np.testing.assert_allclose(found, np.percentile(values, [50, 25, 75]))


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    # a disturbance that hits both in one round is none of the ratio's
    assert ratio([2.0, 200.0, 2.0], [1.0, 100.0, 1.0]) == Spread(2.0, 2.0, 2.0)
    found = ratio([3.0, 4.0, 5.0, 8.0, 9.0], [2.0, 1.0, 4.0, 2.0, 2.0])
    assert found.median == 5.0 / 2.0
    assert (found.q1, found.q3) == (1.5, 4.0)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_turns_are_taken_in_another_order_every_round() -> None:
    order: list[str] = []
    was_on = gc.isenabled()
    gc.enable()
    try:

        def step(name: str) -> None:
            assert not gc.isenabled()
            if order[-1:] != [name]:
                order.append(name)

        subjects = [Subject(name, lambda name=name: step(name)) for name in "abc"]  # type: ignore[misc]
        times = measure(subjects, Plan(rounds=4, block_s=0.0, settle_s=0.0))
        assert gc.isenabled()
    finally:
        (gc.enable if was_on else gc.disable)()
    assert {name: len(each) for name, each in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(us > 0 for each in times.values() for us in each)
    # after the warm-up: abc bca cab abc
    assert "".join(order) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_what_comes_before_a_step_comes_before_every_step() -> None:
    calls: list[str] = []
    subject = Subject("one", lambda: calls.append("step"), lambda: calls.append("before"))
    measure([subject], Plan(rounds=2, block_s=0.001, settle_s=0.0))
    assert calls[::2] == ["before"] * (len(calls) // 2)
    assert calls[1::2] == ["step"] * (len(calls) // 2)


def test_the_clock_runs_in_the_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"ns": 0}

    def takes(ns: int) -> Callable[[], None]:
        return lambda: clock.update(ns=clock["ns"] + ns)

    standing = types.SimpleNamespace(
        perf_counter_ns=lambda: clock["ns"],
        perf_counter=lambda: clock["ns"] / 1e9,
        sleep=lambda seconds: takes(int(seconds * 1e9))(),
    )
    monkeypatch.setattr(timing, "time", standing)
    subjects = [Subject("kept", takes(2000)), Subject("fresh", takes(3000), takes(70_000))]
    times = measure(subjects, Plan(rounds=3, block_s=0.001, settle_s=0.5))
    assert times == {"kept": [2.0] * 3, "fresh": [3.0] * 3}


def test_the_garbage_collector_is_back_after_an_error() -> None:
    assert gc.isenabled()

    def fail() -> None:
        raise RuntimeError("no step")

    with pytest.raises(RuntimeError, match="no step"):
        measure([Subject("one", fail)], Plan())
    assert gc.isenabled()


def test_results_relate_everybody_to_fastadam_and_to_the_floor() -> None:
    times = {"floor": [1.0, 1.0], "fastadam": [2.0, 2.0], "numpy": [8.0, 12.0]}
    row = ratios.results(times)
    assert row["times_us"]["numpy"] == {"median": 10.0, "q1": 9.0, "q3": 11.0, "rounds": [8, 12]}
    assert row["beside_fastadam"] == {"numpy": {"median": 5.0, "q1": 4.5, "q3": 5.5}}
    assert {name: r["median"] for name, r in row["beside_floor"].items()} == {
        "fastadam": 2.0,
        "numpy": 10.0,
    }
    assert "beside_floor" not in ratios.results({"fastadam": [1.0]})


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0.0004, "0.40 ns"),
        (0.9994, "999 ns"),
        (1.0, "1.00 µs"),
        (12.34, "12.3 µs"),
        (999.0, "999 µs"),
        (1500.0, "1.50 ms"),
        (2e6, "2.00 s"),
        (123e6, "123 s"),
    ],
)
def test_times_have_three_digits(us: float, text: str) -> None:
    assert report.microseconds(us) == text


def test_tables() -> None:
    row: dict[str, Any] = {
        "variant": "adamw",
        "dtype": "float32",
        "threads": 2,
        "case": "mlp",
        "tensors": 6,
        "elements": 17694,
        "gradients": "kept",
        "us_per_parameter": {"fastadam": 0.25},
        **ratios.results(
            {"floor": [0.95, 1.05], "fastadam": [2.0, 2.0], "torch-fused": [30.0, 30.0]}
        ),
    }
    lines = list(report.text([row]))
    assert lines == [
        "mlp, adamw, float32, 2 thread(s), 6 tensors, gradients kept, 17,694 elements",
        "                    time of a step   beside fastadam      beside floor",
        "  floor        1.00 µs (0.97-1.03)",
        "  fastadam     2.00 µs (2.00-2.00)                    2.00 (1.95-2.06)",
        "  torch-fused  30.0 µs (30.0-30.0)  15.0 (15.0-15.0)  30.0 (29.3-30.8)",
        "  for each parameter: fastadam 250 ns",
        "",
    ]


def write_cache(folder: Path, **files: str) -> None:
    """Write what Linux says of a cache."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


def test_caches_are_read_or_left_out(tmp_path: Path) -> None:
    assert machine.cache_bytes(tmp_path / "none") == {}
    write_cache(tmp_path / "index0", type="Data", level="1", size="48K")
    write_cache(tmp_path / "index1", type="Instruction", level="1", size="32K")
    write_cache(tmp_path / "index2", type="Unified", level="2", size="1024K")
    write_cache(tmp_path / "index3", type="Unified", level="3", size="32M")
    write_cache(tmp_path / "index4", type="Unified", level="4", size="unknown")
    write_cache(tmp_path / "index5", type="Unified", size="3M")
    sizes = {"L1": 48 << 10, "L2": 1 << 20, "L3": 32 << 20}
    assert machine.cache_bytes(tmp_path) == sizes


def test_the_cpu_has_a_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert machine.cpu_model(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nprocessor\t: 1\n")
    assert machine.cpu_model(cpuinfo) == "A CPU @ 3 GHz"


def test_the_time_of_other_programs(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    assert machine.others_seconds(stat) is None
    stat.write_text("cpu  1 2\n")
    assert machine.others_seconds(stat) is None
    stat.write_text("cpu  100000 0 50000 77 88 1 2 3 4 5\ncpu0 1\n")
    first = machine.others_seconds(stat)
    stat.write_text("cpu  100000 0 50000 99 99 1 2 10000003 4 5\ncpu0 1\n")
    second = machine.others_seconds(stat)
    assert first is not None
    assert second is not None
    # idling and waiting are no work; what another machine takes from this one is
    assert second - first > 10_000
