"""The fixed run behind ``selftest``: the same inputs, bit for bit, on every machine.

The inputs are 24-bit integers over powers of two, made by integer arithmetic, so float32 and
float64 hold them exactly and no library function has a say in them. The betas are 3/4, for which
``1 - beta**t`` does not depend on how a platform's ``pow`` rounds: ``beta**t`` is exact as long as
its last bit could matter. What is left is IEEE arithmetic in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.cli.arguments import restored_threads
from fastadam.kernels.cpu.threads import set_num_threads
from fastadam.optimizers import AdaBound, Adam, AdamW, AMSBound, AMSGrad

__all__ = [
    "DTYPES",
    "N_STEPS",
    "THREADS",
    "VARIANTS",
    "Results",
    "gradients",
    "made",
    "numbers",
    "parameters",
    "serialized",
    "train",
]

Array = npt.NDArray[Any]
# By parameter, then 'p', 'm', 'v' and, with AMSGrad, 'vhat'.
Results = dict[str, dict[str, Array]]

N_STEPS = 1000
DTYPES = ("float32", "float64")
# More threads than one, and an odd number, so that their ranges begin anywhere.
THREADS = 3

_BETAS = {"beta1": 0.75, "beta2": 0.75}
_BOUND = {"alpha": 0.003, "final_lr": 0.02, "gamma": 0.03, "eps": 3e-6, "eta": 0.9, **_BETAS}

# Variant by name: its class and hyperparameters. No two share all of theirs.
VARIANTS: dict[str, tuple[type[Adam], dict[str, Any]]] = {
    "adam": (Adam, {"alpha": 0.001, **_BETAS}),
    "adamw": (AdamW, {"alpha": 0.002, "weight_decay_rate": 0.011, "eta": 0.7, **_BETAS}),
    "amsgrad": (AMSGrad, {"alpha": 0.005, "eps": 2e-7, **_BETAS}),
    "adabound": (AdaBound, _BOUND),
    "amsbound": (AMSBound, {**_BOUND, "final_lr": 0.007, "gamma": 0.003}),
}

# Names and shapes. 'large' alone has more elements than the kernels leave to one thread;
# 'fortran' and 'strided' have layouts of their own; the gradients of 'tiny' underflow in float32.
_SHAPES: dict[str, tuple[int, ...]] = {
    "large": (181, 183),
    "vector": (17,),
    "scalar": (),
    "cube": (3, 5, 7),
    "empty": (0, 3),
    "fortran": (13, 11),
    "strided": (9, 8),
    "tiny": (64,),
}
_TINY = 2.0**-56

# Gradients begin at so many places of one array, which therefore are aligned in every way.
_PLACES = 61
_POOL = 40_000


def numbers(n: int, start: int) -> Array:
    """Return n numbers from -1 to 1, a sixteenth of them 0, the others of many magnitudes.

    They are the integers from `start` on, hashed by SplitMix64's finalizer: Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    x = np.arange(start + 1, start + n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    mantissa = (x >> np.uint64(40)).astype(np.int64) - (1 << 23)
    mantissa[(x & np.uint64(15)) == 0] = 0
    scale = np.int64(1) << (23 + ((x >> np.uint64(4)) & np.uint64(15)).astype(np.int64))
    # both are exact in float64, and scale is a power of two
    quotients: Array = mantissa.astype(np.float64) / scale.astype(np.float64)
    return quotients


def parameters(dtype: str) -> dict[str, Array]:
    """Return the parameters before the first step, by name, in their layouts."""
    values = numbers(_POOL, 1 << 32).astype(dtype)
    found = {
        name: array.copy(order="F" if name == "fortran" else "C")
        for name, array in _cut(values, 0).items()
    }
    return found | {"strided": np.repeat(found["strided"], 2, axis=1)[:, ::2]}


def gradients(dtype: str) -> Iterator[dict[str, Array]]:
    """Yield the gradients of one step after another, without end."""
    values = numbers(_POOL, 0).astype(dtype)
    places = [_cut(values, 37 * place % 1009) for place in range(_PLACES)]
    for place in places:
        place["tiny"] = place["tiny"] * values.dtype.type(_TINY)
    while True:
        yield from places


def made(variant: str, **hyperparameters: float) -> Adam:
    """Return the optimizer of a variant, with other hyperparameters than its own where given."""
    kind, usual = VARIANTS[variant]
    # AdamW asks for it; Chainer's has no other
    mode: dict[str, Any] = {"decay_mode": "eta"} if kind is AdamW else {}
    return kind(**{**usual, **mode, **hyperparameters})


def train(variant: str, dtype: str, n_steps: int, mixed: bool, **hyperparameters: float) -> Results:
    """Make steps of one variant through the public interface; return all arrays.

    Not mixed, all parameters are stepped in one call, on one thread, in C order. Mixed, they are in
    layouts of all kinds, and the steps take turns between one thread and `THREADS`, and between one
    call and a call for each parameter. The results are the same. Hyperparameters that are given
    take the place of those in `VARIANTS`.

    Examples
    --------
    >>> from fastadam.cli import fixed_run
    >>> plain = fixed_run.train('adam', 'float32', 12, mixed=False)
    >>> mixed = fixed_run.train('adam', 'float32', 12, mixed=True)
    >>> fixed_run.serialized(plain) == fixed_run.serialized(mixed)
    True
    """
    params = parameters(dtype)
    if not mixed:
        params = {name: np.array(p, order="C") for name, p in params.items()}
    opt = made(variant, **hyperparameters).setup(params)
    rules = {name: param.update_rule for name, param in opt.parameters.items()}
    grads = gradients(dtype)
    with restored_threads():
        for t in range(n_steps):
            set_num_threads(THREADS if mixed and t % 5 == 0 else 1)
            # a rule with a hook of its own is updated by itself: in steps 4 and 5 of ten
            if mixed and t % 10 == 4:
                for rule in rules.values():
                    rule.add_hook(lambda rule, param: None, "by itself")
            elif mixed and t % 10 == 6:
                for rule in rules.values():
                    rule.remove_hook("by itself")
            step = next(grads)
            if not mixed:
                step = {name: np.asarray(g, order="C") for name, g in step.items()}
            opt.apply_gradients(step)
    return {name: {"p": params[name], **rules[name].state} for name in params}


def serialized(results: Results) -> bytes:
    """Return the bytes of every element that `train` returned, in order, little-endian."""
    return b"".join(
        array.astype(array.dtype.newbyteorder("<")).tobytes()
        for arrays in results.values()
        for array in arrays.values()
    )


def _cut(values: Array, begin: int) -> dict[str, Array]:
    """Cut arrays of all the shapes out of one array, one after the other."""
    found = {}
    for name, shape in _SHAPES.items():
        end = begin + int(np.prod(shape, dtype=np.int64))
        found[name] = values[begin:end].reshape(shape, order="F" if name == "fortran" else "C")
        begin = end
    return found
