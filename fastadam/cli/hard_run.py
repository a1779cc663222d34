"""The run behind the second digest of ``selftest``: what the first does not see.

Half precision, hooks, loss scales and the gradient norm, NaN and infinities, float32 at the edge of
the subnormal numbers and float64 among them, and betas whose powers are not exact. The inputs are
made as those of the first, by `fixed_run.numbers`.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.cli import fixed_run
from fastadam.cli.arguments import restored_threads
from fastadam.kernels.cpu import engine
from fastadam.kernels.cpu.threads import set_num_threads
from fastadam.kernels.step import adam_step
from fastadam.kernels.table import N_COEFFICIENTS, TENSOR
from fastadam.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
    WeightDecay,
)
from fastadam.update.rule_state import master_of

__all__ = ["N_STEPS", "PARTS", "POWERS", "canonical", "results"]

Array = npt.NDArray[Any]

N_STEPS = 8
_DTYPES = ("float16", *fixed_run.DTYPES)
_BETAS: dict[str, Any] = {"beta1": 0.75, "beta2": 0.75}
_BFLOAT16 = 2  # how the kernels' table calls it, which needs no library that has the dtype

# Betas whose powers are not exact, and steps at which both powers are further than 0.3 of their
# last bit from where their rounding turns: so far off no C library's pow is. Then the digest tells
# nothing of the library, of which `powers` tells.
POWERS: dict[tuple[float, float], tuple[int, ...]] = {
    (0.9, 0.999): (1, 5, 47, 58, 104, 167, 201, 296, 398, 498, 571, 704, 806, 926),
    (0.95, 0.9999): (1, 12, 17, 39, 88, 149, 226, 318, 447, 509, 604, 758, 812, 891),
}


def results(part: str, mixed: bool) -> list[Array]:
    """Make a part; `mixed`: every other step on several threads, which changes nothing."""
    with restored_threads(), np.errstate(all="ignore"):
        set_num_threads(1)
        make, *dtype = PARTS[part]
        return list(make(mixed, *dtype))


def canonical(arrays: list[Array]) -> bytes:
    """Return the bytes of arrays, little-endian, all NaN as one: its sign and payload may differ.

    bfloat16 comes as uint16.
    """
    parts = []
    for array in arrays:
        x = array.copy()
        if x.dtype == np.uint16:
            x[(x & 0x7FFF) > 0x7F80] = 0x7FC0
        elif x.dtype.kind == "f":
            x[np.isnan(x)] = np.nan
        parts.append(x.astype(x.dtype.newbyteorder("<")).tobytes())
    return b"".join(parts)


def _train(
    opt: Any,
    dtype: str,
    mixed: bool,
    scale: float | None = None,
    masters: bool = False,
    hooks: Iterable[Any] = (),
) -> Iterator[Array]:
    """Step all the shapes of the first run, with what the optimizer has been given."""
    usual = "float64" if dtype == "float64" else "float32"
    params = {name: p.astype(dtype) for name, p in fixed_run.parameters(usual).items()}
    opt.setup(params)
    for hook in hooks:
        opt.add_hook(hook)
    opt.use_fp32_update(masters)
    opt.monitor = True
    norms = []
    for t, grads in zip(range(N_STEPS), fixed_run.gradients(usual), strict=False):
        set_num_threads(fixed_run.THREADS if mixed and t % 2 else 1)
        factor = np.float32(scale or opt.loss_scale or 1)
        scaled = {name: (g * factor).astype(dtype) for name, g in grads.items()}
        if opt.loss_scale and t % 4 == 2:
            scaled["vector"][5] = np.inf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            opt.apply_gradients(scaled, loss_scale=scale or opt.loss_scale)
        norms.append([opt.last_update.grad_norm, opt.loss_scale or 0.0])
    yield np.array(norms, np.float64)
    for name, param in opt.parameters.items():
        yield params[name]
        yield from param.update_rule.state.values()
        if masters:
            yield master_of(param.update_rule).array


def _amsbound() -> Any:
    """Return an optimizer whose steps the bounds hold and let pass."""
    return fixed_run.made("amsbound", final_lr=0.02, gamma=0.03)


def _float16(mixed: bool) -> Iterator[Array]:
    yield from _train(fixed_run.made("amsgrad"), "float16", mixed)
    yield from _train(fixed_run.made("adamw"), "float16", mixed, masters=True)


def _bfloat16(mixed: bool) -> Iterator[Array]:
    """Through the loops: parameters, gradients, both, and masters."""
    n = 33_003
    wide = fixed_run.numbers(n, 1 << 33).astype(np.float32)
    # float32 cut off to bfloat16, as uint16
    half: Array = (wide.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    rows = [(half, half), (half, wide), (wide, half), (wide, half)]
    ours = [(p.copy(), g.copy(), *np.zeros((3, n), np.float32)) for p, g in rows]
    rounded = half.copy()
    table = np.zeros(len(ours), TENSOR)
    table["step"] = True
    for i, arrays in enumerate(ours):
        for key, array in zip(("p", "g", *ADAM.state), arrays, strict=True):
            table[key][i] = array.ctypes.data
        for key, array in (("p_type", arrays[0]), ("g_type", arrays[1])):
            table[key][i] = _BFLOAT16 if array.dtype == np.uint16 else 0
    table["n"], table["start"], table["amsgrad"] = n, n * np.arange(len(ours)), 1
    table["half"][-1], table["half_type"][-1] = rounded.ctypes.data, _BFLOAT16
    hyperparam = fixed_run.made("amsgrad", eps=1e-8).hyperparam.get_dict()
    for t in range(1, N_STEPS + 1):
        set_num_threads(fixed_run.THREADS if mixed and t % 2 else 1)
        row = step_coefficients(hyperparam, t)[:N_COEFFICIENTS]
        engine.run(table, np.array([row], np.float32))
        for _, g, *_ in ours:
            g[...] = np.roll(g, 7)
    yield rounded
    for p, _, *state in ours:
        yield from (p, *state)


def _hooks(mixed: bool, dtype: str) -> Iterator[Array]:
    def noise(xp: Any, shape: Any, dtype: Any, hook: Any, rule: Any) -> Array:
        n = int(np.prod(shape, dtype=np.int64))
        drawn: Array = fixed_run.numbers(n, rule.t << 20).reshape(shape).astype(dtype)
        return drawn

    hooks = [
        WeightDecay(0.013),
        Lasso(0.007),
        GradientLARS(weight_decay=0.003),
        GradientNoise(0.1, noise),
        GradientHardClipping(-0.7, 0.9),
        GradientClipping(0.37),
    ]
    yield from _train(_amsbound(), dtype, mixed, hooks=hooks)


def _scales(mixed: bool, dtype: str) -> Iterator[Array]:
    """Take a power of two, another scale, and a dynamic one that meets infinities."""
    for scale in (1024.0, 3.7):
        yield from _train(fixed_run.made("adam"), dtype, mixed, scale)
    opt = fixed_run.made("adam")
    opt.loss_scaling(interval=1)
    yield from _train(opt, dtype, mixed, masters=dtype == "float16")


def _special(mixed: bool, dtype: str) -> Iterator[Array]:
    """Every combination of NaN, infinities, zeros, large and small numbers."""
    values = [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 3e38, -(2.0**-60)]
    roots = [0.0, 1.0, 2.0**-80, np.inf, np.nan]
    combined = np.array(list(itertools.product(values, values, values, roots)))
    kind = np.float64 if dtype == "float64" else np.float32
    for amsgrad, adabound in itertools.product((False, True), (False, True)):
        p, g, m, v = (column.copy() for column in combined.T)
        p, g, m, v = p.astype(dtype), g.astype(dtype), m.astype(kind), v.astype(kind)
        largest = [np.roll(v, 1)] if amsgrad else []
        more: dict[str, Any] = {"adabound": adabound, "weight_decay_rate": 0.011, **_BETAS}
        adam_step(p, g, m, v, *largest, t=3, alpha=0.01, **more)
        yield from (p, m, v, *largest)
    for scale in (None, 1024.0, 3.7):
        p, g = (column.astype(dtype) for column in combined.T[:2])
        opt = _amsbound().setup({"p": p})
        for hook in (WeightDecay(0.5), Lasso(0.25), GradientHardClipping(-2.0, 3.0)):
            opt.add_hook(hook)
        opt.apply_gradients({"p": g}, loss_scale=scale)
        yield from (p, *opt.parameters["p"].update_rule.state.values())


def _edge(mixed: bool) -> Iterator[Array]:
    """Products and quotients within some steps of 2**-126, line by line of the formula."""

    def near(value: float) -> Array:
        bits = np.array(value, np.float32).view(np.int32) + np.arange(-64, 64, dtype=np.int32)
        return bits.view(np.float32)

    tiny, zeros = 2.0**-126, np.zeros(128, np.float32)
    for rate in (0.008, 0.3, 0.61):
        one_minus = 1 - rate
        yield from _step(near(tiny / one_minus), zeros, zeros, zeros, weight_decay_rate=rate)
        yield from _step(zeros, near(tiny / rate), zeros, zeros, beta1=one_minus)
        yield from _step(zeros, zeros, zeros, near(tiny / rate), beta2=one_minus)
        for eta in (1.0, one_minus):
            m = near(tiny / (0.75 * eta * one_minus))
            yield from _step(zeros, zeros, m, zeros, alpha=one_minus / 2, eps=1.0, eta=eta)
    yield from _step(zeros, near(2.0**-63), zeros, zeros)
    for alpha in near(2.0**-76)[56:72].tolist():
        # the quotient alpha / 2**50, times m = 2**50
        still = {"beta1": 0.0, "beta2": 0.0, "alpha": alpha, "eps": 1.0}
        yield from _step(zeros, np.full(128, 2.0**50, np.float32), zeros, zeros, **still)


def _subnormal(mixed: bool) -> Iterator[Array]:
    """float64 keeps subnormal numbers."""
    small = np.rint(fixed_run.numbers(512, 1 << 34) * 2.0**60) * 2.0**-1074
    yield from _step(small, small[::-1], np.roll(small, 3), np.abs(small), weight_decay_rate=0.3)


def _powers(mixed: bool, dtype: str) -> Iterator[Array]:
    for (beta1, beta2), steps in POWERS.items():
        p = fixed_run.numbers(500, 1 << 35).astype(dtype)
        state = np.zeros((len(ADAM.state), 500), dtype)
        for t in steps:
            g = fixed_run.numbers(500, t << 36).astype(dtype)
            adam_step(p, g, *state, t=t, alpha=0.01, beta1=beta1, beta2=beta2)
        yield from (p, *state)


def _step(p: Array, g: Array, m: Array, v: Array, **hyperparameters: Any) -> Iterator[Array]:
    """Make the first step, where powers of betas are these themselves, on copies of arrays."""
    p, m, v = p.copy(), m.copy(), v.copy()
    adam_step(p, g, m, v, t=1, **{**_BETAS, **hyperparameters})
    yield from (p, m, v)


# By name: what makes a part, and of which dtype where it makes several.
PARTS: dict[str, tuple[Any, ...]] = {
    "float16": (_float16,),
    "bfloat16": (_bfloat16,),
    **{f"hooks {dtype}": (_hooks, dtype) for dtype in _DTYPES},
    **{f"scales {dtype}": (_scales, dtype) for dtype in _DTYPES},
    **{f"NaN {dtype}": (_special, dtype) for dtype in _DTYPES},
    "edge float32": (_edge,),
    "edge float64": (_subnormal,),
    **{f"powers {dtype}": (_powers, dtype) for dtype in fixed_run.DTYPES},
}
