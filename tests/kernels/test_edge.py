"""At the edge of the subnormal numbers: rounded as for any exponent, then flushed.

Just below 2**-126, numbers of 24 bits lie twice as dense as those that float32 has, so which of the
two a result is rounded to decides whether it is 2**-126 or zero. Every line of the formula is taken
there, in the loops of every instruction set, in the formula in array operations, and in fractions.
"""

from __future__ import annotations

import importlib
from fractions import Fraction

import numpy as np
import pytest

import fastadam
from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels.cpu import _cpu_features, engine
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.table import TENSOR

MODULES = {"baseline": "_step", "avx2": "_step_avx2", "avx512": "_step_avx512"}
TINY = 2.0**-126
N = 24  # elements for each set of coefficients
SETS = 150

# What leaves everything as it is, until a line is chosen.
STILL = Coefficients(1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, np.inf, False, False)

# Line of the formula: which scalar, and which array, meet at the edge.
LINES = ("m", "g*g", "v", "vhat", "step", "step*m", "eta", "decay", "sums")


def around(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The float32 beside some numbers: up to three steps away."""
    bits = np.asarray(values, np.float32).view(np.int32)
    return (bits + random.integers(-3, 4, bits.shape, np.int32)).view(np.float32)


def at_the_edge(line: str, random: np.random.Generator) -> tuple[list[np.ndarray], Coefficients]:
    """Arrays p, g, m, v, vhat and coefficients that bring one line's result near 2**-126."""
    sign = random.choice(np.float32([-1, 1]), N)
    p, g, m, v, vhat = np.zeros((5, N), np.float32)
    mantissa = np.float32(random.uniform(1, 2)) * np.float32(2.0) ** int(random.integers(-30, 0))
    scalar = float(mantissa)
    v[:] = 1
    c = STILL._replace(amsgrad=bool(random.integers(2)), adabound=bool(random.integers(2)))
    if line == "m":
        g[:] = around(np.full(N, TINY / scalar), random) * sign
        c = c._replace(one_minus_beta1=scalar)
    elif line == "g*g":
        g[:] = around(np.full(N, 2.0**-63), random) * sign
        v[:] = 0
        c = c._replace(one_minus_beta2=1.0)
    elif line == "v":
        v[:] = around(np.full(N, TINY / scalar), random)
        c = c._replace(one_minus_beta2=scalar)
    elif line == "vhat":
        vhat[:] = around(np.full(N, TINY), random)
        v[:] = around(np.full(N, TINY), random)
        c = c._replace(amsgrad=True)
    elif line == "step":
        # alpha_t / sqrt(v), seen in p through a large m
        root = 2.0**50 * float(random.choice([1, random.uniform(1, 2)]))
        v[:] = around(np.full(N, root**2), random)
        m[:] = 2.0**60 * sign
        c = c._replace(alpha_t=float(around(np.float32(TINY * root), random)), amsgrad=False)
    elif line == "step*m":
        m[:] = around(np.full(N, TINY / scalar), random) * sign
        vhat[:] = 1
        c = c._replace(alpha_t=scalar)
    elif line == "eta":
        m[:] = around(np.full(N, TINY / scalar), random) * sign
        vhat[:] = 1
        c = c._replace(eta=scalar)
    elif line == "decay":
        p[:] = around(np.full(N, TINY / scalar), random) * sign
        c = c._replace(one_minus_decay=scalar)
    else:
        # differences of neighbours, and sums of anything small
        p, g, m, v, vhat = np.float32(random.integers(-(2**25), 2**25, (5, N)) * 2.0**-150)
        v, vhat = np.abs(v), np.abs(vhat)
        c = c._replace(one_minus_beta1=1.0, one_minus_beta2=1.0, alpha_t=TINY, eps=1.0)
    return [p, g, m, v, vhat], c


def cases(line: str) -> list[tuple[list[np.ndarray], Coefficients]]:
    random = np.random.default_rng(LINES.index(line))
    return [at_the_edge(line, random) for _ in range(SETS)]


def run(isa: str, steps: list[tuple[list[np.ndarray], Coefficients]]) -> None:
    """Step arrays with the loops of one instruction set, each with coefficients of its own."""
    if isa not in engine.built_instruction_sets() or isa not in _cpu_features.supported():
        pytest.skip(f"{isa} is not built, or this CPU does not run it")
    table = np.zeros(len(steps), TENSOR)
    table["step"] = True
    for i, (arrays, c) in enumerate(steps):
        for key, array in zip(("p", "g", *ADAM.state), arrays, strict=True):
            table[key][i] = array.ctypes.data
        for flag in ADAM.flags:
            table[flag][i] = getattr(c, flag)
    table["row"], table["n"] = np.arange(len(steps)), N
    table["start"] = N * np.arange(len(steps))
    module = importlib.import_module(f"fastadam.kernels.cpu.{MODULES[isa]}")
    module.adam_float32(table, np.array([c[: len(ADAM.scalars)] for _, c in steps], np.float32), 1)


@pytest.mark.parametrize("isa", MODULES)
def test_the_loops_and_the_array_formula_agree(isa: str) -> None:
    for line in LINES:
        ours = cases(line)
        run(isa, ours)
        different = 0
        for (arrays, _), (expected, c) in zip(ours, cases(line), strict=True):
            adam_reference(*expected, c)
            for mine, theirs in zip(arrays, expected, strict=True):
                different += int((mine.view(np.uint32) != theirs.view(np.uint32)).sum())
        assert different == 0, f"{line}: {different} elements differ"


def rounded(x: Fraction) -> float:
    """x to 24 bits, half to even, for any exponent; then zero for what is below 2**-126."""
    if x == 0:
        return 0.0
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length() - 24
    if abs(x) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    unit = Fraction(2) ** exponent
    whole = round(x / unit) * unit  # round() is half to even
    return 0.0 if abs(whole) < Fraction(2) ** -126 else float(whole)


def test_the_array_formula_is_what_it_says() -> None:
    """The lines of one operation, in fractions; both outcomes are there in number."""
    for line in ("m", "g*g", "step*m", "eta", "decay", "step"):
        zeros = others = between = 0
        for (p, g, m, v, vhat), c in cases(line)[:80]:
            before = [array.tolist() for array in (p, g, m, v)]
            adam_reference(p, g, m, v, vhat, c)
            for i, (p_i, g_i, m_i, v_i) in enumerate(zip(*before, strict=True)):
                F = Fraction  # noqa: N806
                if line == "m":
                    exact, found = F(c.one_minus_beta1) * F(g_i), m[i]
                elif line == "g*g":
                    exact, found = F(g_i) ** 2, v[i]
                elif line == "step*m":
                    exact, found = -F(c.alpha_t) * F(m_i), p[i]
                elif line == "eta":
                    exact, found = -F(c.eta) * F(m_i), p[i]
                elif line == "decay":
                    exact, found = F(c.one_minus_decay) * F(p_i), p[i]
                else:
                    root = F(float(np.sqrt(np.float32(v_i))))
                    exact, found = F(c.alpha_t) / root, -p[i] / np.float32(m_i)
                expected = rounded(exact)
                assert found == expected, (line, i, float(exact).hex(), found, expected)
                zeros += expected == 0
                others += expected != 0
                # where float32's own rounding gives 2**-126, and that of any exponent less
                between += F(2) ** -150 >= F(2) ** -126 - abs(exact) > F(2) ** -151
        assert min(zeros, others) > 200, line
        # the squares next to the edge are further away than that, and of quotients there is one
        assert between > 20 or line == "g*g", (line, between)


def test_zeros_keep_their_sign() -> None:
    for line in ("m", "step*m", "decay"):
        for arrays, c in cases(line):
            p, g, m, *_ = arrays
            before = np.signbit({"m": g, "step*m": -m, "decay": p}[line])
            adam_reference(*arrays, c)
            if line == "m":
                # -0 + 0 is 0, so a zero's sign is seen in numbers that are none
                assert not np.signbit(m[m == 0]).any()
            elif line == "decay":
                assert np.array_equal(np.signbit(p), before)


def test_no_other_numbers_change() -> None:
    """Away from the edge the array formula is float32 arithmetic."""
    random = np.random.default_rng(1)
    p, g, m, v, vhat = np.float32(random.standard_normal((5, 1000)))
    v, vhat = v * v, vhat * vhat
    c = STILL._replace(one_minus_beta1=0.25, one_minus_beta2=0.5, alpha_t=0.125, eps=0.5)
    f = np.float32
    m_ = m + f(0.25) * (g - m)
    v_ = v + f(0.5) * (g * g - v)
    p_ = f(1) * p - f(1) * (f(0.125) / (np.sqrt(v_) + f(0.5)) * m_)
    adam_reference(p, g, m, v, vhat, c)
    for ours, theirs in ((p, p_), (m, m_), (v, v_)):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("way", ["step", "monitor", "clipping", "half"])
def test_the_division_by_a_loss_scale_is_float32s_own(way: str) -> None:
    """Rounded in the ordinary way, and flushed then: in the step itself and in a pass before it."""
    random = np.random.default_rng(7)
    seen = 0
    for scale in (3.7, 1024.0, 1e6, 0.3, 12345.0):
        g = around(np.full(200, TINY * scale), random)
        dtype = np.float16 if way == "half" else np.float32
        opt = fastadam.Adam(beta1=0.0).setup({"w": np.ones(200, dtype)})
        opt.monitor = way == "monitor"
        if way == "clipping":
            opt.add_hook(fastadam.optimizer_hooks.GradientClipping(1.0))
        opt.apply_gradients({"w": g.copy()}, loss_scale=scale)
        g[g < TINY] = 0
        quotient = g / np.float32(scale)
        expected = np.where(np.abs(quotient) < TINY, np.float32(0), quotient)
        m = opt.parameters["w"].update_rule.state["m"]
        assert m.tobytes() == expected.tobytes(), scale
        exact = g.astype(np.float64) / np.float32(scale)
        seen += int(((expected != 0) & (exact < TINY - 2.0**-151)).sum())
    assert seen > 10
