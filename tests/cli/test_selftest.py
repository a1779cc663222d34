"""The self-test: its inputs, the paths it takes, and that it fails when something differs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.__main__ import main
from fastadam.cli import fixed_run, hard_run, powers, selftest, selftest_checks
from fastadam.kernels import multi_tensor
from fastadam.kernels.cpu import _cpu_features, _threads, engine
from fastadam.kernels.cpu._rows import Rows
from fastadam.optimizers import Adam


@pytest.mark.slow
def test_published_digest(capsys: pytest.CaptureFixture[str]) -> None:
    fastadam.set_num_threads(5)
    try:
        assert main(["selftest", "--json"]) == 0
        assert fastadam.get_num_threads() == 5
    finally:
        fastadam.set_num_threads(None)
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["passed"] is True
    assert result["differences"] == []
    assert result["sha256"] == result["published"] == selftest_checks.PUBLISHED
    assert result["second"] == result["second_published"] == selftest_checks.PUBLISHED_SECOND
    assert result["powers_not_nearest"] == [list(pair) for pair in powers.not_nearest()]
    assert result["instruction_set"] == engine.instruction_set()
    assert result["steps"] == 1000
    for part in hard_run.PARTS:
        assert f"  {part:17} equal" in err
    for variant in fixed_run.VARIANTS:
        for dtype in ("float32", "float64"):
            assert f"{variant} {dtype}" in err


@pytest.mark.parametrize("good", [True, False])
def test_every_instruction_set_is_asked(
    good: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each in a process of its own; the whole is run in the environment `isa`."""

    def in_process(isa: str) -> dict[str, Any]:
        fine = good or isa == "baseline"
        return {
            "instruction_set": isa,
            "passed": fine,
            "sha256": selftest_checks.PUBLISHED if fine else "0" * 64,
            "second": selftest_checks.PUBLISHED_SECOND,
            "differences": [] if fine else ["Adam float32: another digest"],
        }

    monkeypatch.setattr(selftest, "_check_in_process", in_process)
    built, supported = set(engine.built_instruction_sets()), set(_cpu_features.supported())
    whole = good or built & supported == {"baseline"}
    assert main(["selftest", "--isa", "all", "--json"]) == (0 if whole else 1)
    result = json.loads(capsys.readouterr().out)
    assert result["runs"].keys() == built & supported
    assert result["not_run"].keys() == built - supported
    assert result["agree"] is whole
    for isa, single in result["runs"].items():
        assert single == in_process(isa)


def short(monkeypatch: pytest.MonkeyPatch, *variants: str) -> None:
    """Leave a few steps of some variants, and publish what these give."""
    monkeypatch.setattr(fixed_run, "N_STEPS", 12)
    chosen = {name: fixed_run.VARIANTS[name] for name in variants}
    monkeypatch.setattr(fixed_run, "VARIANTS", chosen)
    parts = dict.fromkeys(selftest_checks.PUBLISHED_PARTS, "")
    monkeypatch.setattr(selftest_checks, "PUBLISHED_PARTS", parts)
    _, differences = selftest_checks.check_digest(lambda part, good: None)
    for difference in differences:
        part, _, rest = difference.partition(": digest ")
        parts[part] = rest[:16]
    whole, _ = selftest_checks.check_digest(lambda part, good: None)
    monkeypatch.setattr(selftest_checks, "PUBLISHED", whole)
    monkeypatch.setattr(hard_run, "PARTS", {"edge float64": hard_run.PARTS["edge float64"]})
    second, _ = selftest_checks.check_second_digest(lambda part, good: None)
    monkeypatch.setattr(selftest_checks, "PUBLISHED_SECOND", second)


def test_text_of_a_good_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short(monkeypatch, "adam")
    assert main(["selftest"]) == 0
    out, err = capsys.readouterr()
    assert f"sha256     {selftest_checks.PUBLISHED}" in out
    assert f"second     {selftest_checks.PUBLISHED_SECOND}" in out
    assert f"powers of betas: {len(powers.not_nearest())} of 5000 are not the nearest" in out
    assert "adam float32      equal" in out
    assert "edge float64      equal" in out
    assert "\npassed in" in out
    assert "different" not in out
    assert err == ""


def test_another_digest_fails_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short(monkeypatch, "adam", "amsgrad")
    kind, given = fixed_run.VARIANTS["amsgrad"]
    changed = {**fixed_run.VARIANTS, "amsgrad": (kind, {**given, "alpha": 0.005000001})}
    monkeypatch.setattr(fixed_run, "VARIANTS", changed)
    assert main(["selftest"]) == 1
    out = capsys.readouterr().out
    assert "  amsgrad float64: digest " in out
    assert "adam float64      equal" in out
    assert "amsgrad float64   different" in out
    assert "\nFAILED in" in out


def test_another_digest_over_all_parts_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, "adam")
    monkeypatch.setattr(selftest_checks, "PUBLISHED", "0" * 64)
    assert main(["selftest"]) == 1


def test_a_difference_between_paths_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short(monkeypatch, "adabound")
    train = fixed_run.train

    def one_bit_off(*args: Any, mixed: bool, **kwds: Any) -> fixed_run.Results:
        results = train(*args, mixed=mixed, **kwds)
        if mixed:
            results["cube"]["v"].reshape(-1)[17:18].view(np.uint8)[0] ^= 1
        return results

    monkeypatch.setattr(fixed_run, "train", one_bit_off)
    assert main(["selftest", "--json"]) == 1
    differences = json.loads(capsys.readouterr().out)["differences"]
    # against the array formula, then against the plain path
    parts = ["adabound float32", "adabound float64"]
    assert [text.partition(":")[0] for text in differences] == parts + parts
    for text in differences:
        assert "v of 'cube', 1 of 105 elements, the first at 17:" in text


@pytest.mark.parametrize("name", ["adam_reference", "adam_step"])
def test_a_difference_to_the_formula_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_run, "VARIANTS", {"amsbound": fixed_run.VARIANTS["amsbound"]})
    right = getattr(selftest_checks, name)

    def wrong(p: np.ndarray, *args: Any, **kwds: Any) -> None:
        right(p, *args, **kwds)
        if p.shape == (17,):
            p[3] = np.nextafter(p[3], p.dtype.type(9))

    monkeypatch.setattr(selftest_checks, name, wrong)
    found = selftest_checks.check_reference()
    if name == "adam_step":
        assert len(found) == 2
    else:
        assert len(found) == 4
    for text in found:
        assert text.startswith("amsbound float")
        assert "p of 'vector', 1 of 17 elements, the first at 3" in text


def test_differences_are_those_of_bits() -> None:
    def of(*values: float) -> fixed_run.Results:
        return {"w": {"p": np.array(values)}}

    assert selftest_checks.first_difference(of(np.nan, 0.0), of(np.nan, 0.0)) is None
    assert selftest_checks.first_difference(of(1.0, -0.0), of(1.0, 0.0)) is not None
    assert selftest_checks.first_difference(of(-np.nan), of(np.nan)) is not None


def test_inputs_are_the_hashed_integers() -> None:
    mask = (1 << 64) - 1
    expected = []
    for i in range((1 << 32) + 1, (1 << 32) + 34001):
        x = i * 0x9E3779B97F4A7C15 & mask
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
        x ^= x >> 31
        number = 0.0 if x & 15 == 0 else ((x >> 40) - 2**23) / 2 ** (23 + (x >> 4 & 15))
        expected.append(number)
    for dtype in fixed_run.DTYPES:
        params = fixed_run.parameters(dtype)
        flat = [p.ravel(order="F" if name == "fortran" else "C") for name, p in params.items()]
        values = np.concatenate(flat)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, expected[: len(values)])


def test_inputs_reach_every_kind_of_array() -> None:
    params = fixed_run.parameters("float32")
    assert params["large"].size > _threads.SERIAL_BELOW
    assert params["scalar"].ndim == 0
    assert params["empty"].size == 0
    assert params["fortran"].flags.f_contiguous
    assert not params["fortran"].flags.c_contiguous
    assert not params["strided"].flags.forc
    starts, tiniest = set(), []
    for _, grads in zip(range(61), fixed_run.gradients("float32"), strict=False):
        assert {k: g.shape for k, g in grads.items()} == {k: p.shape for k, p in params.items()}
        starts.add(grads["large"].ctypes.data % 64)
        tiniest.append(grads["tiny"])
    assert len(starts) == 16
    squares = np.concatenate(tiniest).astype(np.float64) ** 2
    assert np.any((squares > 0) & (squares < np.finfo(np.float32).tiny))


def test_the_mixed_run_takes_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, int]] = []

    def spied(step: Any) -> Any:
        def spy(tables: list[Rows], n_threads: list[int], *more: Any) -> None:
            found = zip(tables, n_threads, strict=True)
            calls.extend((len(rows), rows.total, n) for rows, n in found)
            step(tables, n_threads, *more)

        return spy

    # the second where all arrays are dense
    for name in ("run", "step_and_commit"):
        monkeypatch.setattr(multi_tensor, name, spied(getattr(multi_tensor, name)))
    fixed_run.train("adam", "float32", 10, mixed=True)
    large = {(rows > 1, n_threads) for rows, n, n_threads in calls if n > _threads.SERIAL_BELOW}
    assert large == {(True, 1), (True, 3), (False, 1), (False, 3)}
    calls.clear()
    fixed_run.train("adam", "float32", 10, mixed=False)
    assert {(rows > 1, n_threads) for rows, n, n_threads in calls if n > _threads.SERIAL_BELOW} == {
        (True, 1)
    }


def test_the_bounds_hold_some_steps_and_let_others_pass() -> None:
    for variant in ("adabound", "amsbound"):
        results = fixed_run.train(variant, "float64", 100, mixed=False)
        kind, given = fixed_run.VARIANTS[variant]
        opt = kind(**given).setup(np.zeros(1))
        for _ in range(100):
            opt.apply_gradients(np.ones(1))
        lower, upper = opt.parameters["param"].update_rule.bounds
        arrays = results["large"]
        step = opt.alpha_t / (np.sqrt(arrays.get("vhat", arrays["v"])) + opt.eps)
        assert np.any(step < upper)
        assert np.any(step > upper)
        assert lower > 0


def test_variants_are_the_public_classes() -> None:
    kinds = {kind.__name__ for kind, _ in fixed_run.VARIANTS.values()}
    assert kinds == {"Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound"}
    assert all(issubclass(kind, Adam) for kind, _ in fixed_run.VARIANTS.values())


def test_a_process_that_dies_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "_CHILD", "import sys; sys.exit('out of luck')")
    monkeypatch.setattr(_cpu_features, "supported", lambda: ("baseline",))
    monkeypatch.setattr(engine, "built_instruction_sets", lambda: ("baseline", "avx2"))
    assert main(["selftest", "--isa", "all", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] is False
    assert result["differences"] == ["baseline: the process ended with status 1: out of luck"]
    assert result["not_run"] == {"avx2": "this CPU does not run it"}


def test_a_build_without_openmp_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short(monkeypatch, "adam")
    monkeypatch.setattr(selftest._openmp, "version", lambda: 0)
    assert main(["selftest"]) == 0
    assert "threads: 1 (built without OpenMP)" in capsys.readouterr().out
