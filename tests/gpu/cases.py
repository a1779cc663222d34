"""Arrays for tests of kernels: the same values on a CPU and on a GPU, and all bits compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from steps import HYPERPARAM as ALL
from steps import arrays_of, step_of

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels._source import ArraySource
from fastadam.kernels.grouping import coefficients_of
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.table import Step

__all__ = [
    "AMSBOUND",
    "OFFSETS",
    "SPECIAL",
    "assert_batches_agree",
    "assert_masters_agree",
    "assert_prepared_steps_agree",
    "assert_same_bits",
    "assert_steps_agree",
    "coefficients_at",
    "dtype_of",
    "model",
    "moved",
    "on_gpu",
    "special_values",
    "values",
]

AMSBOUND = ("true", "true")
# What arithmetic treats in a way of its own.
SPECIAL = (
    *(0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1.1754944e-38, -1.1754942e-38),
    *(1e-310, -5e-324, 1e308, 2.3e-308),
    *(3.4028235e38, -3.4028235e38, 65504.0, 65520.0, 65536.0, 6e-8, 5.9604645e-08, 6.1e-5, 1.0),
)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of what the CUDA source calls float, double, float16 or bfloat16."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def values(types: tuple[str, str, str], n: int, seed: int = 0) -> list[np.ndarray]:
    """Return p, g, m, v, vhat of types that compute, store parameters and store gradients."""
    computing, p_type, g_type = map(dtype_of, types)
    p, g, m, v, vhat = np.random.default_rng(seed).normal(size=(5, n))
    return [
        p.astype(p_type),
        g.astype(g_type),
        m.astype(computing),
        (v * v).astype(computing),
        (vhat * vhat).astype(computing),
    ]


def special_values(types: tuple[str, str, str], n: int) -> list[np.ndarray]:
    """Return arrays in which special values meet each other and ordinary ones."""
    arrays = values(types, n, 1)
    random = np.random.default_rng(2)
    with np.errstate(all="ignore"):
        for array in arrays:
            places = random.random(n) < 0.4
            some = random.choice(SPECIAL, n)
            array[places] = some[places].astype(array.dtype)
        if array.dtype == np.float32:
            # a NaN whose bits are all ones
            array.view(np.uint32)[::97] = 0x7FFFFFFF
    # second moments are not negative
    arrays[3], arrays[4] = np.abs(arrays[3]), np.abs(arrays[4])
    return arrays


def on_gpu(cupy: Any, array: np.ndarray, offset: int = 0) -> Any:
    """Copy an array to a GPU, some elements after an aligned address."""
    there = cupy.empty(array.size + offset, array.dtype)[offset:]
    there.set(array)
    return there


def assert_same_bits(there: Any, here: np.ndarray, what: object = "") -> None:
    """Compare all bits; a NaN is a NaN."""
    ours = there.get() if hasattr(there, "get") else there
    assert ours.dtype == here.dtype
    assert ours.shape == here.shape
    nan = np.isnan(here)
    assert np.array_equal(np.isnan(ours), nan), what
    unsigned = f"u{here.itemsize}"
    one, other = ours[~nan].view(unsigned), here[~nan].view(unsigned)
    wrong = np.flatnonzero(one != other)
    assert not wrong.size, f"{what}: {ours[~nan][wrong[:3]]} for {here[~nan][wrong[:3]]}"


HYPERPARAM = {name: value for name, value in ALL.items() if name not in ADAM.flags}
# Elements from an aligned address to the first one of p, g, m, v, vhat; all of these meet
# somewhere, or nowhere.
OFFSETS = (
    *((0, 0, 0, 0, 0), (3, 3, 3, 3, 3), (5, 5, 1, 1, 1), (0, 1, 2, 3, 1), (1, 0, 0, 0, 0)),
    *((0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1)),
)


def coefficients_at(t: int, variant: tuple[str, str], **changes: Any) -> Coefficients:
    flags = {"amsgrad": variant[0] == "true", "adabound": variant[1] == "true"}
    return step_coefficients({**HYPERPARAM, **flags, **changes}, t, 0.05)


def assert_steps_agree(
    cupy: Any,
    arrays: list[np.ndarray],
    variant: tuple[str, str],
    offsets: tuple[int, ...] = OFFSETS[0],
    ts: tuple[int, ...] = (1, 2, 3),
    **changes: Any,
) -> None:
    here = [array.copy() for array in arrays]
    there = [on_gpu(cupy, array, o) for array, o in zip(arrays, offsets, strict=True)]
    for t in ts:
        c = coefficients_at(t, variant, **changes)
        for p, g, m, v, vhat in (here, there):
            adam_batch([step_of("p", p, g, m, v, vhat if c.amsgrad else None, c)])
    assert_same_bits(here[1], arrays[1])
    for name, one, other in zip(("p", "g", *ADAM.state), there, here, strict=True):
        assert_same_bits(one, other, f"{name} {len(other)} {offsets}")


def model(types: Any, sizes: Any, variant: Any, n_sets: int = 1) -> list[Step]:
    """Return steps of several tensors, with several sets of coefficients."""
    sets = [coefficients_at(t + 1, variant) for t in range(n_sets)]
    made = []
    for i, n in enumerate(sizes):
        p, g, m, v, vhat = values(types, n, i)
        c = sets[i % n_sets]
        made.append(step_of(f"p{i}", p, g, m, v, vhat if c.amsgrad else None, c))
    return made


def moved(cupy: Any, step: Step) -> Step:
    arrays = [None if array is None else on_gpu(cupy, array) for array in arrays_of(step)]
    return step_of(step.name, *arrays, step.coefficients)


def assert_batches_agree(there: list[Step], here: list[Step]) -> None:
    for one, other in zip(there, here, strict=True):
        for ours, theirs in zip(arrays_of(one), arrays_of(other), strict=True):
            if theirs is not None:
                assert_same_bits(ours, theirs, other.name)


def assert_prepared_steps_agree(
    cupy: Any, types: Any, write: bool, scale: float | None, rate: float
) -> None:
    """Prepared gradients are what NumPy's operations make of them, and written if asked for."""
    here = model(types, (3, 257, 2000), AMSBOUND)
    there = [moved(cupy, step) for step in here]
    batch = MultiTensorStep(ArraySource(there, []), there)
    assert batch.refresh(coefficients_of(there))
    batch.step({}, {}, ())
    adam_batch(here)
    c = coefficients_at(3, AMSBOUND)
    assert batch.steady
    assert batch.refresh([c])
    scales = None if scale is None else [scale] * 3
    may = batch.prepare(scales, rate, write)
    # a half type cannot hold what has been divided
    assert may == (types[0] == types[2] or not scale or not write)
    if not may:
        return
    owner: dict[str, Any] = {}
    batch.step(owner, {"t": 3}, ())
    assert owner == {"t": 3}
    here = [step._replace(g=_prepared(step, scale, rate, write), coefficients=c) for step in here]
    adam_batch(here)
    for one, other in zip(there, here, strict=True):
        assert_batches_agree([one._replace(g=one.p)], [other._replace(g=other.p)])
        if write:
            assert_same_bits(one.g, other.g)


def _prepared(step: Step, scale: float | None, rate: float, write: bool) -> Any:
    """Return what is made of a gradient."""
    m = step.named()["m"]
    real = m.dtype.type
    if scale is None:
        # clipped in its own type
        return (step.g.astype(real) * real(rate)).astype(step.g.dtype)
    return step.g.astype(real) / real(scale) * real(rate)


def assert_masters_agree(cupy: Any, half: str, gradient: str) -> None:
    """Float32 masters take over what was written to their halves, and are rounded to them.

    Beside one that is nobody's master, in the same launch.
    """
    h_type = dtype_of(half)
    p, g, m, v, _ = values(("float", "float", gradient), 3000)
    # numbers half-way between two of the half type, with no step to leave them by
    ties = slice(100, 2000)
    p[ties] = p[ties].astype(h_type).astype(np.float32)
    p[ties] = (p.view(np.uint32) | (0x1000 if half == "float16" else 0x8000)).view(np.float32)[ties]
    g[ties], m[ties] = 0, 0
    with np.errstate(over="ignore", under="ignore"):
        p[2000:2600] = np.random.default_rng(3).choice(SPECIAL, 600).astype(np.float32)
        halves = p.astype(h_type)
    # written from outside
    halves[::7] = np.arange(len(halves[::7])).astype(h_type)
    others = values(("float", "float", gradient), 300, 1)[:4]
    c = coefficients_at(2, ("false", "false"), weight_decay_rate=0.0)
    done = []
    for xp in (np, cupy):
        own = [a.copy() if xp is np else on_gpu(xp, a) for a in (p, g, m, v, halves)]
        own += [a.copy() if xp is np else on_gpu(xp, a) for a in others]
        steps = [step_of("p", *own[:4], None, c), step_of("q", *own[5:], None, c)]
        low_precision = [own[4], None]
        batch = MultiTensorStep(ArraySource(steps, low_precision), steps, low_precision)
        assert batch.steady
        for _ in range(2):
            assert batch.refresh([c])
            batch.step({}, {}, ())
        done.append(own)
    for one, other in zip(done[1], done[0], strict=True):
        assert_same_bits(one, other, half)
