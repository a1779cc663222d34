"""The second digest: what it sees, and that nothing but what it is about can change it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.cli import hard_run, powers, selftest_checks
from fastadam.kernels import reference


def digests(*parts: str) -> list[str]:
    """What `check_second_digest` finds wrong in some parts."""
    _, differences = selftest_checks.check_second_digest(lambda part, good: None)
    return [text for text in differences if text.partition(":")[0] in parts or not parts]


def test_threads_do_not_change_it() -> None:
    for part in hard_run.PARTS:
        plain, mixed = (hard_run.canonical(hard_run.results(part, m)) for m in (False, True))
        assert plain == mixed, part


def test_it_does_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert digests() == []


def by_formula(p: Any, g: Any, m: Any, v: Any, vhat: Any = None, *, t: int, **given: Any) -> None:
    """`adam_step` in array operations."""
    defaults = fastadam.Adam().hyperparam.get_dict()
    hyperparam = {**defaults, **given, "amsgrad": vhat is not None}
    reference.adam_reference(p, g, m, v, vhat, step_coefficients(hyperparam, t))


def test_the_array_formula_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_run, "adam_step", by_formula)
    assert digests() == []


@pytest.mark.parametrize("edge", [2.0**-126, 2.0**-126 - 2.0**-150])
def test_other_edges_are_seen(monkeypatch: pytest.MonkeyPatch, edge: float) -> None:
    """Flushed before rounding, or rounded to the numbers that float32 has."""
    monkeypatch.setattr(hard_run, "adam_step", by_formula)
    monkeypatch.setattr(reference, "_EDGE", edge)
    (found,) = digests()
    assert found.startswith("edge float32: digest ")


def test_a_part_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part by itself, by one bit of its last array."""
    right = hard_run.results
    for part in hard_run.PARTS:

        def wrong(name: str, mixed: bool, part: str = part) -> list[Any]:
            arrays = right(name, mixed)
            if name == part:
                arrays[-1] = arrays[-1].copy()
                arrays[-1].reshape(-1).view(np.uint8)[-2] ^= 1
            return arrays

        monkeypatch.setattr(hard_run, "results", wrong)
        monkeypatch.setattr(hard_run, "PARTS", {part: hard_run.PARTS[part]})
        found = digests()
        monkeypatch.undo()
        assert len(found) == 1, part
        assert found[0].startswith(f"{part}: digest "), part


def test_the_digest_over_all_parts_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest_checks, "PUBLISHED_SECOND", "0" * 64)
    if not selftest_checks.known_to_differ():
        (found,) = digests()
        assert found.startswith("the second digest is ")


def test_what_a_machine_is_known_for_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selftest_checks.PUBLISHED_SECOND_PARTS, "edge float32", "another")
    reports: dict[str, bool] = {}
    for machine in ("x86_64", "aarch64", "arm64"):
        monkeypatch.setattr(selftest_checks.platform, "machine", lambda name=machine: name)
        _, found = selftest_checks.check_second_digest(reports.__setitem__)
        assert bool(found) == (machine == "x86_64")
        assert [part for part, good in reports.items() if not good] == ["edge float32"]


def test_the_documentation_publishes_both() -> None:
    page = Path(__file__).parents[2] / "docs" / "algorithms.rst"
    text = page.read_text(encoding="utf-8")
    assert f"sha256     {selftest_checks.PUBLISHED}" in text
    assert f"second     {selftest_checks.PUBLISHED_SECOND}" in text


def test_nan_is_one_number_and_zeros_are_two() -> None:
    for dtype, bits in (
        (np.float16, [0x7E01, 0xFE00, 0x7C01]),
        (np.float32, [0x7FC00001, 0xFFC00000, 0x7F800001]),
        (np.float64, [0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001]),
    ):
        width = np.dtype(dtype).itemsize
        made = [np.array([x], f"u{width}").view(dtype) for x in bits]
        assert len({hard_run.canonical([x]) for x in made}) == 1
        zeros, minus = np.zeros(1, dtype), -np.zeros(1, dtype)
        assert hard_run.canonical([zeros]) != hard_run.canonical([minus])
    halves = [np.array([x], np.uint16) for x in (0x7FC1, 0xFFC0, 0x7F81)]
    assert len({hard_run.canonical([x]) for x in halves}) == 1
    infinite = np.array([0x7F80, 0xFF80], np.uint16)
    assert hard_run.canonical([infinite]) == infinite.astype("<u2").tobytes()


def place(beta: float, t: int) -> Fraction:
    """Where beta**t lies between the two float64 around it: 0 and 1 are these, 1/2 the middle."""
    exact = Fraction(beta) ** t
    below = float(exact)
    if Fraction(below) > exact:
        below = np.nextafter(below, 0)
    above = float(np.nextafter(below, 1))
    return (exact - Fraction(float(below))) / (Fraction(above) - Fraction(float(below)))


def test_no_library_rounds_these_powers_otherwise() -> None:
    for betas, steps in hard_run.POWERS.items():
        exact = [t for t in steps if all(place(beta, t) == 0 for beta in betas)]
        assert exact == [1]
        for t in steps:
            for beta in betas:
                assert abs(float(place(beta, t)) - 0.5) > 0.3, (beta, t)


def test_powers_that_are_not_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever the C library has: each of these, and no other of those looked at."""
    monkeypatch.setattr(powers, "BETAS", (0.9, 0.999))
    monkeypatch.setattr(powers, "N_STEPS", 60)

    def wrong(at: tuple[float, int]) -> Callable[[float, int], float]:
        # Fraction's conversion rounds to the nearest
        return lambda beta, t: float(Fraction(beta) ** t) * (1 + (at == (beta, t)) * 2.0**-52)

    for at in ((0.9, 1), (0.9, 17), (0.999, 60)):
        monkeypatch.setattr(powers.math, "pow", wrong(at))
        assert powers.not_nearest() == [at]
    monkeypatch.setattr(powers.math, "pow", wrong((2.0, 0)))
    assert powers.not_nearest() == []
