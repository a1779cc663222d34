"""Half-precision numbers in the loops: widened, computed with in float32, rounded back.

The kernels have no door to the conversions alone. With the scalars chosen so, a step hands a number
through: ``NARROW`` makes p = m, ``PASS`` leaves p as it is, ``READ`` makes m = g.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from steps import step_of

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels.cpu import _cpu_features, engine
from fastadam.kernels.dtypes import stored
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.table import TENSOR

MODULES = {"baseline": "_step", "avx2": "_step_avx2", "avx512": "_step_avx512"}
HALVES = ("float16", "bfloat16")
TINY = np.finfo(np.float32).tiny

_STEP = dict.fromkeys(Coefficients._fields, 0.0) | {"amsgrad": False, "adabound": False}
# p = 1*p - (-1)*(1 / (0 + 1) * m), with m and v as they are
NARROW = Coefficients(**(_STEP | {"alpha_t": 1, "eps": 1, "eta": -1, "one_minus_decay": 1}))
# p = 1*p - 0
PASS = Coefficients(**(_STEP | {"alpha_t": 1, "eps": 1, "one_minus_decay": 1}))
# m += 1*(g - m)
READ = PASS._replace(one_minus_beta1=1.0)


def half_dtype(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def run(
    isa: str, c: Coefficients, p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray
) -> None:
    """Step arrays with the loops of one instruction set."""
    if isa not in engine.built_instruction_sets() or isa not in _cpu_features.supported():
        pytest.skip(f"{isa} is not built, or this CPU does not run it")
    table = np.zeros(1, TENSOR)
    table["step"] = True
    for key, array in zip("pgmv", (p, g, m, v), strict=True):
        table[key] = array.ctypes.data
    table["n"], table["p_type"], table["g_type"] = p.size, stored(p.dtype), stored(g.dtype)
    module = importlib.import_module(f"fastadam.kernels.cpu.{MODULES[isa]}")
    module.adam_float32(table, np.array([c[: len(ADAM.scalars)]], np.float32), 1)


def zeros(n: int) -> np.ndarray:
    """Return n zeros of float32."""
    return np.zeros(n, np.float32)


def patterns(dtype: np.dtype) -> np.ndarray:
    """Every number that a half type has."""
    return np.arange(65536).astype(np.uint16).view(dtype)


def widened(x: np.ndarray) -> np.ndarray:
    """Half-precision numbers as float32, signalling NaN as quiet ones."""
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float32)
    return np.where(np.isnan(wide), np.float32(np.nan), wide)


def around(x: np.ndarray) -> np.ndarray:
    """Numbers with their neighbours among float32, of both signs."""
    x = x.astype(np.float32)
    with np.errstate(over="ignore"):
        x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(0))])
    return np.concatenate([x, -x])


def boundaries(name: str) -> np.ndarray:
    """The float32 at which rounding decides: half types' numbers, the midpoints between, beside."""
    positive = np.sort(widened(patterns(half_dtype(name))[:0x8000]).astype(np.float64))
    finite = positive[np.isfinite(positive)]
    top = {"float16": [65504, 65519.99, 65520, 65536, 1e10, 3e38], "bfloat16": [3.396e38]}[name]
    midpoints = (finite[1:] + finite[:-1]) / 2
    overflow = finite[-1] + (finite[-1] - finite[-2]) / 2
    least = finite[1] * np.array([0.25, 0.5, 0.75, 1, 1.5])  # for float16 2**-25 and the like
    numbers = around(np.concatenate([finite, midpoints, [overflow], least, top]))
    return numbers[np.isfinite(numbers)]


def same_bits(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Compare every bit but the sign and payload of NaN."""
    assert mine.dtype == theirs.dtype
    numbers = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.isnan(mine), ~numbers)
    bits = f"u{mine.itemsize}"
    np.testing.assert_array_equal(mine[numbers].view(bits), theirs[numbers].view(bits))


def flushed(x: np.ndarray) -> np.ndarray:
    """The same float32 with subnormal ones as zeros of their sign."""
    return np.where(abs(x) < TINY, np.copysign(np.float32(0), x), x)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("isa", MODULES)
def test_every_pattern_is_widened_exactly_and_narrowed_back(isa: str, name: str) -> None:
    before = patterns(half_dtype(name))
    p, n = before.copy(), before.size
    run(isa, PASS, p, zeros(n), zeros(n), zeros(n))
    # bfloat16 has the exponents of float32, so its subnormal numbers are flushed like those
    expected = flushed(widened(before)).astype(before.dtype)
    same_bits(p, expected)
    if name == "float16":
        same_bits(p, before)


@pytest.mark.parametrize("parameter", ["of the same type", "of float32"])
@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("isa", MODULES)
def test_every_pattern_of_a_gradient_is_widened_exactly(
    isa: str, name: str, parameter: str
) -> None:
    p_name = "float32" if parameter == "of float32" else name
    g = patterns(half_dtype(name))
    n = g.size
    p, m, v = np.zeros(n, half_dtype(p_name)), zeros(n), zeros(n)
    run(isa, READ, p, g, m, v)
    np.testing.assert_array_equal(m, flushed(widened(g)))


@pytest.mark.parametrize("decay", [0.5, 1.0 - 2.0**-12, 1 / 3, 2.0**-13])
@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("isa", MODULES)
def test_every_pattern_times_a_factor(isa: str, name: str, decay: float) -> None:
    """One product in float32, rounded to the half type: NumPy's conversions are the oracle."""
    before = patterns(half_dtype(name))
    p, n = before.copy(), before.size
    run(isa, PASS._replace(one_minus_decay=decay), p, zeros(n), zeros(n), zeros(n))
    wide = flushed(widened(before))
    with np.errstate(all="ignore"):
        same_bits(p, flushed(wide * np.float32(decay)).astype(before.dtype))


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("isa", MODULES)
def test_rounding_at_every_boundary_is_numpys(isa: str, name: str) -> None:
    m = boundaries(name)
    assert m.size > 300_000
    p = np.zeros(m.size, half_dtype(name))
    run(isa, NARROW, p, zeros(m.size), m.copy(), zeros(m.size))
    expected = flushed(m)
    expected[expected == 0] = 0  # 0 - (-0) is 0
    with np.errstate(over="ignore"):
        same_bits(p, expected.astype(p.dtype))


def test_the_boundaries_are_those_of_the_types() -> None:
    """Overflow, ties and the least numbers, by hand rather than by another library."""
    cases = {
        65504.0: 65504.0,
        65519.996: 65504.0,
        65520.0: np.inf,
        65536.0: np.inf,
        2.0**-24: 2.0**-24,
        2.0**-25: 0.0,
        2.0**-25 * (1 + 2.0**-23): 2.0**-24,
        1.5 * 2.0**-24: 2.0**-23,
        2.5 * 2.0**-24: 2.0**-23,
        2.0**-14 - 2.0**-25: 2.0**-14,
        1 + 2.0**-11: 1.0,
        1 + 3 * 2.0**-11: 1 + 2.0**-9,
        2049.0: 2048.0,
        2051.0: 2052.0,
        1e-20: 0.0,
    }
    for isa in MODULES:
        for sign in (1, -1):
            m = np.array(list(cases), np.float32) * np.float32(sign)
            p = np.zeros(m.size, np.float16)
            run(isa, NARROW, p, zeros(m.size), m, zeros(m.size))
            np.testing.assert_array_equal(p, sign * np.array(list(cases.values()), np.float16))
            np.testing.assert_array_equal(np.signbit(p), sign < 0)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("isa", MODULES)
def test_any_float32_is_rounded_as_numpy_does(isa: str, name: str) -> None:
    random = np.random.default_rng(7)
    m = random.integers(0, 2**32, 300_001, dtype=np.uint32).view(np.float32)
    m = m[np.isfinite(m)]
    p = np.zeros(m.size, half_dtype(name))
    run(isa, NARROW, p, zeros(m.size), m.copy(), zeros(m.size))
    expected = flushed(m)
    expected[expected == 0] = 0
    with np.errstate(over="ignore"):
        same_bits(p, expected.astype(p.dtype))


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("isa", MODULES)
def test_infinity_and_nan_are_kept(isa: str, name: str) -> None:
    m = np.tile(np.array([np.nan, 3e38, -3e38, 1.0], np.float32), 9)
    p = np.zeros(m.size, half_dtype(name))
    run(isa, NARROW._replace(eta=-4.0), p, zeros(m.size), m, zeros(m.size))
    np.testing.assert_array_equal(p.astype(np.float32), np.tile([np.nan, np.inf, -np.inf, 4], 9))
    # no NaN becomes infinity, whatever its payload, and no infinity NaN
    payloads = np.arange(0x7F800001, 0x7FFFFFFF, 9973, dtype=np.uint32)
    m = np.concatenate([payloads, payloads | 0x80000000]).astype(np.uint32).view(np.float32)
    p = np.zeros(m.size, half_dtype(name))
    run(isa, NARROW, p, zeros(m.size), m, zeros(m.size))
    assert np.isnan(p).all()


def test_subnormal_float16_live_on_where_subnormal_float32_are_flushed() -> None:
    least = np.float16(2.0**-24)
    for isa in MODULES:
        p, g = np.full(33, least), np.full(33, -least)
        m, v = np.full((2, 33), 1e-40, np.float32)
        run(isa, READ, p, g, m, v)
        np.testing.assert_array_equal(p, least)
        np.testing.assert_array_equal(m, np.float32(-(2.0**-24)))
        np.testing.assert_array_equal(v, 0)


HYPERPARAM = {
    "alpha": 0.02,
    "beta1": 0.83,
    "beta2": 0.971,
    "eps": 3e-4,
    "eta": 0.77,
    "weight_decay_rate": 0.013,
    "final_lr": 0.04,
    "gamma": 0.03,
}


def papers_step(
    p: np.ndarray, g: np.ndarray, state: list[np.ndarray], t: int, amsgrad: bool, adabound: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """One step of the formula in float64, written from the papers."""
    hp, (m, v, vhat) = HYPERPARAM, state
    m = hp["beta1"] * m + (1 - hp["beta1"]) * g
    v = hp["beta2"] * v + (1 - hp["beta2"]) * g**2
    vhat = np.maximum(vhat, v)
    root = np.sqrt(vhat if amsgrad else v)
    size = np.sqrt(1 - hp["beta2"] ** t) / (1 - hp["beta1"] ** t) * hp["alpha"] / (root + hp["eps"])
    if adabound:
        lower = hp["final_lr"] * (1 - 1 / (hp["gamma"] * t + 1))
        size = np.clip(size, lower, hp["final_lr"] * (1 + 1 / (hp["gamma"] * t)))
    return p - hp["eta"] * (size * m + hp["weight_decay_rate"] * p), [m, v, vhat]


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("adabound", [False, True])
@pytest.mark.parametrize("g_name", ["own", "float32"])
@pytest.mark.parametrize("name", HALVES)
def test_half_parameters_follow_the_formula_in_float64(
    name: str, g_name: str, adabound: bool, amsgrad: bool
) -> None:
    """Every step is right to half a unit in the last place of the half type.

    Beside that there is only the rounding of float32, some 1e-6 of the numbers that are added.
    """
    dtype = half_dtype(name)
    random = np.random.default_rng(11)
    p = (random.uniform(0.01, 4, 500) * random.choice([-1, 1], 500)).astype(dtype)
    m, v, vhat = np.zeros((3, 500), np.float32)
    state = [np.zeros(500)] * 3
    for t in range(1, 31):
        g = (random.standard_normal(500) * 0.5).astype(dtype if g_name == "own" else g_name)
        true, state = papers_step(
            p.astype(np.float64), g.astype(np.float64), state, t, amsgrad, adabound
        )
        hp = {**HYPERPARAM, "amsgrad": amsgrad, "adabound": adabound}
        before = p.astype(np.float64)
        c = step_coefficients(hp, t)
        adam_batch([step_of("p", p, g, m, v, vhat if amsgrad else None, c)])
        spacing = np.maximum(
            abs(np.nextafter(p, dtype.type(np.inf)).astype(np.float64) - p.astype(np.float64)),
            abs(np.nextafter(p, dtype.type(-np.inf)).astype(np.float64) - p.astype(np.float64)),
        )
        bound = 0.5 * spacing + 2e-6 * (abs(before) + abs(true - before))
        assert np.all(abs(p.astype(np.float64) - true) <= bound)
        np.testing.assert_allclose(m, state[0], rtol=3e-6, atol=1e-7)
        np.testing.assert_allclose(v, state[1], rtol=3e-6, atol=1e-9)
        if amsgrad:
            np.testing.assert_allclose(vhat, state[2], rtol=3e-6, atol=1e-9)
    assert np.any(abs(p.astype(np.float64)) > 0.5)


@pytest.mark.parametrize("name", HALVES)
def test_float32_state_learns_from_gradients_whose_squares_a_half_type_cannot_hold(
    name: str,
) -> None:
    """Chainer's state in float16 makes v zero here, and the step alpha/eps times too large."""
    p = np.ones(8, half_dtype(name))
    g = np.full(8, 1e-5, p.dtype)
    m, v = np.zeros((2, 8), np.float32)
    hp = {**HYPERPARAM, "eps": 1e-8, "weight_decay_rate": 0, "amsgrad": False, "adabound": False}
    adam_batch([step_of("p", p, g, m, v, None, step_coefficients(hp, 1))])
    np.testing.assert_allclose(p.astype(np.float64), 1 - 0.77 * 0.02, rtol=4e-3)


@pytest.mark.parametrize("name", HALVES)
def test_the_reference_rounds_as_the_loops_do(name: str) -> None:
    m = boundaries(name)
    arrays = [np.zeros(m.size, half_dtype(name)), zeros(m.size), m, zeros(m.size), None]
    ours = [array.copy() for array in arrays[:4]]
    adam_reference(*arrays, NARROW)
    run("baseline", NARROW, *ours)
    for mine, theirs in zip(ours, arrays[:4], strict=True):
        same_bits(mine, theirs)
