"""The loops against the formula in array operations, bit for bit.

Every instruction set that this machine runs, threads, variants, types, sizes and starts.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from steps import HYPERPARAM as ALL
from steps import step_of

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels.cpu import _cpu_features, engine
from fastadam.kernels.dtypes import computing_dtype, stored
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.table import TENSOR, Step

MODULES = {"baseline": "_step", "avx2": "_step_avx2", "avx512": "_step_avx512"}
SIZES = (0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 100, 1023, 16383)
DTYPES = (np.float32, np.float64)
# Parameter and gradient, of every loop there is.
PAIRS = (
    ("float32", "float32"),
    ("float64", "float64"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
)
VARIANTS = {"adam": {}, "amsgrad": {"amsgrad": True}, "adabound": {"adabound": True}}
VARIANTS["amsbound"] = {"amsgrad": True, "adabound": True}

HYPERPARAM = {**ALL, **dict.fromkeys(ADAM.flags, False)}


def coefficients_at(t: int, variant: str, **changes: float) -> Coefficients:
    """The scalars of one step, away from all defaults."""
    return step_coefficients({**HYPERPARAM, **VARIANTS[variant], **changes}, t, 0.05)


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def some_arrays(
    n: int, pair: tuple[str, str] | type, start: int = 0, seed: int = 0
) -> list[np.ndarray]:
    """Return p, g, m, v, vhat in the middle of a run, each `start` elements into its memory."""
    p_dtype, g_dtype = map(dtype_of, pair) if isinstance(pair, tuple) else [np.dtype(pair)] * 2
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.uniform(-3, 1, (5, n + start))
    p, g, m, v, vhat = random.standard_normal((5, n + start)) * scale
    state = [array.astype(computing_dtype(p_dtype)) for array in (m, v * v, vhat * vhat)]
    g[::5] = 0
    return [array[start:] for array in (p.astype(p_dtype), g.astype(g_dtype), *state)]


def kernels(isa: str) -> object:
    """The compiled loops for an instruction set, or a skip that says why not."""
    if isa not in engine.built_instruction_sets():
        pytest.skip(f"{isa} is not built for {_cpu_features.machine()}")
    if isa not in _cpu_features.supported():
        pytest.skip(f"this CPU does not run {isa}")
    return importlib.import_module(f"fastadam.kernels.cpu.{MODULES[isa]}")


def run(module: object, steps: list[Step], n_threads: int) -> None:
    """Step dense arrays through one module's loops, past the checks and the dispatch."""
    table = np.zeros(len(steps), TENSOR)
    table["step"] = True
    start = 0
    for row, step in zip(table, steps, strict=True):
        for key, array in step.named().items():
            row[key] = array.ctypes.data
        row["n"], row["start"], start = step.p.size, start, start + step.p.size
        for flag in ADAM.flags:
            row[flag] = getattr(step.coefficients, flag)
        row["p_type"], row["g_type"] = stored(step.p.dtype), stored(step.g.dtype)
    table["row"] = np.arange(len(steps))
    dtype = steps[0].state[0].dtype
    scalars = np.array([step.coefficients[: len(ADAM.scalars)] for step in steps]).astype(dtype)
    getattr(module, f"adam_{dtype.name}")(table, scalars, n_threads)


def same_bits(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Compare every bit but the sign and payload of NaN."""
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.dtype == theirs.dtype
        numbers = ~np.isnan(theirs)
        np.testing.assert_array_equal(np.isnan(mine), ~numbers)
        bits = f"u{mine.itemsize}"
        np.testing.assert_array_equal(mine.view(bits)[numbers], theirs.view(bits)[numbers])


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("isa", MODULES)
def test_every_size_and_start(isa: str, variant: str, pair: tuple[str, str]) -> None:
    module = kernels(isa)
    for n in SIZES:
        for start in (0, 1, 3):
            ours = some_arrays(n, pair, start)
            expected = [array.copy() for array in ours]
            for t in (1, 2, 9):
                c = coefficients_at(t, variant)
                run(module, [step_of("p", *ours, c)], 1)
                adam_reference(*expected, c)
            same_bits(ours, expected)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@pytest.mark.parametrize("pair", [*PAIRS, "all float32"], ids=str)
@pytest.mark.parametrize("isa", MODULES)
def test_any_number_of_threads_and_mixed_variants(
    isa: str, pair: tuple[str, str] | str, n_threads: int
) -> None:
    module = kernels(isa)
    sizes = [5000, 0, 1, 16, 40000, 3, 0, 777, 64, 9, 31]
    variants = [list(VARIANTS)[i % 4] for i in range(len(sizes))]
    # every pair that is computed in float32 in one table, or one pair alone
    mixed = [PAIRS[0], *PAIRS[2:]] if pair == "all float32" else [pair]
    ours = [some_arrays(n, mixed[i % len(mixed)], start=i % 3, seed=i) for i, n in enumerate(sizes)]
    expected = [[array.copy() for array in arrays] for arrays in ours]
    for t in (1, 2, 30):
        scalars = [coefficients_at(t + i, variant) for i, variant in enumerate(variants)]
        steps = [step_of("p", *a, c) for a, c in zip(ours, scalars, strict=True)]
        run(module, steps, n_threads)
        for arrays, c in zip(expected, scalars, strict=True):
            adam_reference(*arrays, c)
    for mine, theirs in zip(ours, expected, strict=True):
        same_bits(mine, theirs)


def test_more_threads_than_elements() -> None:
    module = kernels("baseline")
    ours = some_arrays(3, np.float32)
    expected = [array.copy() for array in ours]
    c = coefficients_at(4, "amsbound")
    run(module, [step_of("p", *ours, c)], 7)
    adam_reference(*expected, c)
    same_bits(ours, expected)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("isa", MODULES)
def test_non_finite_numbers_propagate_as_in_numpy(
    isa: str, variant: str, pair: tuple[str, str]
) -> None:
    module = kernels(isa)
    dtypes = [array.dtype for array in some_arrays(1, pair)]
    # every combination of special numbers in the five arrays
    index = np.indices((7,) * 5).reshape(5, -1)
    ours = []
    for positions, dtype in zip(index, dtypes, strict=True):
        largest = np.nextafter(dtype.type(np.inf), dtype.type(0))
        bad = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, largest]
        ours.append(np.array(bad, dtype)[positions])
    expected = [array.copy() for array in ours]
    c = coefficients_at(3, variant)
    run(module, [step_of("p", *ours, c)], 1)
    adam_reference(*expected, c)
    same_bits(ours, expected)


@pytest.mark.parametrize("variant", ["adabound", "amsbound"])
@pytest.mark.parametrize("bound", ["lower", "upper"])
def test_nan_bounds_propagate(variant: str, bound: str) -> None:
    module = kernels("baseline")
    ours = some_arrays(33, np.float32)
    expected = [array.copy() for array in ours]
    c = coefficients_at(3, variant)._replace(**{bound: np.nan})
    run(module, [step_of("p", *ours, c)], 1)
    adam_reference(*expected, c)
    assert np.isnan(ours[0]).all()
    same_bits(ours, expected)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("isa", MODULES)
def test_float32_flushes_subnormal_operands_and_results(
    isa: str, variant: str, n_threads: int
) -> None:
    module = kernels(isa)
    random = np.random.default_rng(5)
    ours = [
        (random.choice([-1, 1], 70000) * 10.0 ** random.uniform(-44, -30, 70000)).astype(np.float32)
        for _ in range(5)
    ]
    ours[3], ours[4] = abs(ours[3]), abs(ours[4])
    assert np.count_nonzero(abs(ours[2]) < np.finfo(np.float32).tiny) > 1000
    expected = [array.copy() for array in ours]
    c = coefficients_at(6, variant, eps=1e-30)
    run(module, [step_of("p", *ours, c)], n_threads)
    adam_reference(*expected, c)
    same_bits(ours, expected)
    for array in (ours[0], *ours[2:4]):
        assert not np.any((array != 0) & (abs(array) < np.finfo(np.float32).tiny))
    # the caller's own arithmetic still has subnormal numbers
    assert np.float32(1e-30) * np.float32(1e-10) != 0


def test_float64_keeps_subnormal_numbers() -> None:
    module = kernels("baseline")
    tiny = 5e-324
    ours = [np.full(9, x) for x in (0.0, tiny * 1000, tiny * 7, 0.0, 0.0)]
    run(module, [step_of("p", *ours, coefficients_at(1, "adam"))], 1)
    assert np.all(ours[2] != 0)
    assert np.all(ours[2] < np.finfo(np.float64).tiny)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_untouched_neighbours(pair: tuple[str, str]) -> None:
    """Nothing outside the arrays is written, and never the gradient."""
    for isa in engine.built_instruction_sets():
        if isa not in _cpu_features.supported():
            continue
        module = kernels(isa)
        for n in (1, 7, 16, 17, 63):
            new = some_arrays(n, pair)
            memory = [np.full(n + 64, 12288.0, array.dtype) for array in new]
            arrays = [row[32 : 32 + n] for row in memory]
            for array, values in zip(arrays, new, strict=True):
                array[:] = values
            g = arrays[1].copy()
            run(module, [step_of("p", *arrays, coefficients_at(2, "amsbound"))], 2)
            for row in memory:
                assert np.all(row[:32] == 12288)
                assert np.all(row[32 + n :] == 12288)
            np.testing.assert_array_equal(arrays[1], g)


def test_chosen_kernels_are_a_supported_set() -> None:
    assert engine.instruction_set() in engine.built_instruction_sets()
    assert engine.instruction_set() in _cpu_features.supported()


def test_the_door_runs_the_same_bits() -> None:
    ours = some_arrays(100_000, np.float32)
    expected = [array.copy() for array in ours]
    c = coefficients_at(3, "amsbound")
    adam_batch([step_of("p", *ours, c)])
    adam_reference(*expected, c)
    same_bits(ours, expected)
