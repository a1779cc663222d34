"""The scalars of one step, against the papers' formulas in exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from steps import HYPERPARAM

from fastadam.algorithms.adam import Coefficients
from fastadam.algorithms.coefficients import alpha_t, bounds, step_coefficients


@pytest.mark.parametrize("t", [1, 2, 10, 1000])
def test_alpha_t_is_the_papers(t: int) -> None:
    beta1, beta2 = Fraction(0.83), Fraction(0.971)
    exact = 0.02 * math.sqrt(1 - beta2**t) / (1 - beta1**t)
    assert alpha_t(0.02, 0.83, 0.971, t) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("t", [1, 2, 10, 1000])
def test_bounds_are_the_papers_scaled_by_the_schedule(t: int) -> None:
    final = 0.04 * 0.02 / 0.05
    lower, upper = bounds(0.02, 0.04, 0.03, 0.05, t)
    assert lower == pytest.approx(final * (1 - 1 / (0.03 * t + 1)), rel=1e-12)
    assert upper == pytest.approx(final * (1 + 1 / (0.03 * t)), rel=1e-12)


def test_bounds_close_in_on_final_lr() -> None:
    widths = []
    for t in (1, 10, 1000, 10**6, 10**9):
        lower, upper = bounds(0.001, 0.1, 0.001, 0.001, t)
        assert 0 <= lower < 0.1 < upper
        widths.append(upper - lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-6


def test_every_field() -> None:
    c = step_coefficients(HYPERPARAM, 4, 0.05)
    assert c == Coefficients(
        alpha_t=alpha_t(0.02, 0.83, 0.971, 4),
        one_minus_beta1=1 - 0.83,
        one_minus_beta2=1 - 0.971,
        eps=3e-6,
        eta=0.77,
        one_minus_decay=1 - 0.77 * 0.013,
        lower=bounds(0.02, 0.04, 0.03, 0.05, 4)[0],
        upper=bounds(0.02, 0.04, 0.03, 0.05, 4)[1],
        amsgrad=True,
        adabound=True,
    )


def test_without_adabound_there_are_no_bounds() -> None:
    c = step_coefficients({**HYPERPARAM, "adabound": False}, 4, 0.05)
    assert (c.lower, c.upper, c.adabound) == (0.0, math.inf, False)


def test_no_initial_alpha_means_the_current_one() -> None:
    c = step_coefficients(HYPERPARAM, 4)
    assert (c.lower, c.upper) == bounds(0.02, 0.04, 0.03, 0.02, 4)


def test_eps_mode() -> None:
    assert step_coefficients({**HYPERPARAM, "eps_mode": "hat"}, 4).eps == 3e-6
    paper = step_coefficients({**HYPERPARAM, "eps_mode": "paper"}, 4).eps
    assert paper == pytest.approx(3e-6 * math.sqrt(1 - 0.971**4), rel=1e-12)


def test_decay_mode() -> None:
    eta = step_coefficients({**HYPERPARAM, "decay_mode": "eta"}, 4).one_minus_decay
    alpha = step_coefficients({**HYPERPARAM, "decay_mode": "alpha"}, 4).one_minus_decay
    assert eta == 1 - 0.77 * 0.013
    assert alpha == pytest.approx(1 - 0.77 * 0.02 * 0.013, rel=1e-15)


@pytest.mark.parametrize("name", ["eps_mode", "decay_mode"])
def test_unknown_modes(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be one of .*'torch'"):
        step_coefficients({**HYPERPARAM, name: "torch"}, 1)


def test_before_the_first_step() -> None:
    with pytest.raises(RuntimeError, match="no update has been made"):
        alpha_t(0.1, 0.9, 0.99, 0)
    with pytest.raises(RuntimeError, match="no update has been made"):
        bounds(0.1, 0.1, 0.001, 0.1, 0)


def test_beta1_of_one() -> None:
    with pytest.raises(ZeroDivisionError, match="beta1"):
        alpha_t(0.1, 1.0, 0.99, 3)


def test_gamma_of_zero_is_no_bound_at_all() -> None:
    assert bounds(0.1, 0.5, 0.0, 0.1, 7) == (0.0, math.inf)


def test_alpha_still_at_an_initial_zero_is_no_step() -> None:
    assert bounds(0.0, 0.5, 0.1, 0.0, 7) == (0.0, 0.0)


def test_odd_numbers_are_errors_as_pythons_own_are() -> None:
    """They come from rules of users' own only, past the gates for numbers."""
    with pytest.raises(ZeroDivisionError):
        bounds(0.001, 0.1, -0.5, 0.001, 2)
    with pytest.raises(ZeroDivisionError, match=f"t = {2**53 + 1};"):
        alpha_t(0.001, 1.0, 0.999, 2**53 + 1)
    with pytest.raises(OverflowError):
        alpha_t(0.001, 2.0, 0.999, 5000)
    with pytest.raises(ValueError, match="math domain error"):
        alpha_t(0.001, 0.0, 0.999, -1)
    with pytest.raises(ValueError, match="math domain error"):
        alpha_t(0.001, -0.5, 0.999, 1.5)  # type: ignore[arg-type]
    assert alpha_t(0.001, math.inf, 0.999, 1) == 0
    with pytest.raises(ValueError, match="beta2 = inf"):
        alpha_t(0.001, 0.9, math.inf, 1)
