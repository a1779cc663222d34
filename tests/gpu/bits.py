"""Compare the bits of updates on the GPU with the CPU's: every optimizer, dtype and alignment.

    python tests/gpu/bits.py [--small]

Prints JSON: how many arrays were compared, whether these are all, and which differ; ends with 1 if
one does. With --small it is what a sanitizer gets through in a minute. Beside the tests, which
compare more, it is one program that needs nothing but CuPy; fastadam.torch is compared, too, where
PyTorch sees a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastadam
from fastadam.bench.arrays import dtype_of
from fastadam.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    Lasso,
    WeightDecay,
)

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "Adam": lambda: fastadam.Adam(alpha=0.01),
    "AdamW": lambda: fastadam.AdamW(alpha=0.01, weight_decay_rate=0.005, eta=0.5),
    "AMSGrad": lambda: fastadam.AMSGrad(alpha=0.01),
    "AdaBound": fastadam.AdaBound,
    "AMSBound": fastadam.AMSBound,
}
DTYPES = ("float32", "float16", "bfloat16", "float64")
# What is done beside the plain step: inside of it, and by kernels of the hooks before it.
WAYS = ("plain", "clipped", "scaled", "masters", "lars", "hooks")
HOOKS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "clipped": lambda: (GradientClipping(0.5),),
    "lars": lambda: (GradientLARS(weight_decay=0.01),),
    "hooks": lambda: (
        *(WeightDecay(0.01), GradientLARS(), Lasso(0.01), GradientHardClipping(-1.0, 1.0)),
        GradientClipping(0.5),
    ),
}
SIZES = (1, 3, 5, 255, 1000, 4095, 4097, 70_001)
# in plain updates too: of more blocks than a GPU holds
LARGE = (1 << 21) + 3
SMALL = (1, 5, 1000, 4097)
SCALE = 8.0


class Configuration(NamedTuple):
    """One comparison; with an offset of 1 no array begins at a multiple of 16 bytes."""

    optimizer: str
    dtype: str
    way: str
    offset: int


def configurations(small: bool) -> Iterator[Configuration]:
    """Yield all; a small run has the plainest optimizer and the one with most state."""
    for optimizer in ("Adam", "AMSBound") if small else OPTIMIZERS:
        for dtype in ("float32", "bfloat16") if small else DTYPES:
            for way in WAYS:
                if way == "masters" and dtype not in ("float16", "bfloat16"):
                    continue
                for offset in (0, 1):
                    yield Configuration(optimizer, dtype, way, offset)


def numbers(size: int, dtype: np.dtype[Any], seed: int, scale: float) -> np.ndarray:
    """Return normal numbers of a size."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(size, np.float32) * np.float32(scale)).astype(dtype)


def on_gpu(cupy: Any, array: np.ndarray, offset: int) -> Any:
    """Return a copy that begins so many elements after memory that is aligned."""
    return cupy.asarray(np.concatenate([np.zeros(offset, array.dtype), array]))[offset:]


def differing(
    cupy: Any, configuration: Configuration, sizes: tuple[int, ...]
) -> Iterator[tuple[str, bool]]:
    """Make three updates in both places; yield each array's name, and whether its bits differ."""
    name, kind, way, offset = configuration
    dtype = dtype_of(kind)
    here = {f"p{i}": numbers(n, dtype, i, 1.0) for i, n in enumerate(sizes)}
    there = {key: on_gpu(cupy, p, offset) for key, p in here.items()}
    optimizers = [OPTIMIZERS[name]().setup(params) for params in (here, there)]
    for opt in optimizers:
        for hook in HOOKS.get(way, tuple)():
            opt.add_hook(hook)
        if way == "masters":
            opt.use_fp32_update()
    for step in range(3):
        # small, ordinary and large squares
        size = 10.0 ** (3 * step - 3)
        g = {
            key: numbers(p.size, dtype, 100 * step + i, size)
            for i, (key, p) in enumerate(here.items())
        }
        scale = SCALE if way == "scaled" else None
        optimizers[0].apply_gradients(g, loss_scale=scale)
        gradients = {key: on_gpu(cupy, each, offset) for key, each in g.items()}
        optimizers[1].apply_gradients(gradients, loss_scale=scale)
    cpu, gpu = (opt.parameters for opt in optimizers)
    for key, param in cpu.items():
        states = {"p": param.array, **param.update_rule.state}
        twins = {"p": gpu[key].array, **gpu[key].update_rule.state}
        for what, array in states.items():
            yield f"{key} {what}", np.asarray(array).tobytes() != twins[what].get().tobytes()


def torch_with_gpu() -> Any:
    """Return PyTorch; None where it is not installed, or sees no GPU."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch = importlib.import_module("torch")
    return torch if torch.cuda.is_available() else None


def torch_differing(
    torch: Any, device: str, kind: str, sizes: tuple[int, ...]
) -> Iterator[tuple[str, bool]]:
    """Make three clipped steps of PyTorch's tensors here and on a device, as `differing` does."""
    dtype, numpy_dtype = getattr(torch, kind), np.dtype(np.float32)

    def tensors(seed: int, size: float) -> list[Any]:
        made = (numbers(n, numpy_dtype, seed + i, size) for i, n in enumerate(sizes))
        return [torch.from_numpy(each).to(dtype) for each in made]

    places = ("cpu", device)
    params = [[torch.nn.Parameter(p.to(place)) for p in tensors(0, 1.0)] for place in places]
    make = importlib.import_module("fastadam.torch").AdamW
    optimizers = [make(own, lr=0.01, max_grad_norm=0.5) for own in params]
    for step in range(3):
        for own, opt in zip(params, optimizers, strict=True):
            for p, g in zip(own, tensors(100 * step, 10.0 ** (3 * step - 3)), strict=True):
                p.grad = g.to(p.device)
            opt.step()
    for i, pair in enumerate(zip(*params, strict=True)):
        here, there = (
            {"p": p.detach(), **opt.state[p]} for p, opt in zip(pair, optimizers, strict=True)
        )
        for what, array in here.items():
            if what != "step":
                # bits: PyTorch knows no bfloat16 of NumPy's
                one, other = (each.cpu().view(torch.uint8) for each in (array, there[what]))
                yield f"p{i} {what}", not torch.equal(one, other)


def comparisons(cupy: Any, small: bool) -> Iterator[tuple[str, bool]]:
    """Yield the name of each array that is compared, and whether its bits differ."""
    for configuration in configurations(small):
        sizes = SMALL if small else (*SIZES, *([LARGE] if configuration.way == "plain" else []))
        for what, is_other in differing(cupy, configuration, sizes):
            yield f"{' '.join(map(str, configuration))}: {what}", is_other
    torch = torch_with_gpu()
    for kind in ("float32", "bfloat16") if torch is not None else ():
        for what, is_other in torch_differing(torch, "cuda", kind, SMALL if small else SIZES):
            yield f"fastadam.torch {kind}: {what}", is_other


def main(argv: list[str]) -> int:
    """Compare; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args(argv).small
    cupy = importlib.import_module("cupy")
    if small:
        # each array is an allocation of its own, whose bounds a sanitizer knows
        cupy.cuda.set_allocator(None)
        os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    told: dict[str, Any] = {"checked": 0, "complete": False, "differ": []}
    try:
        for what, is_other in comparisons(cupy, small):
            told["checked"] += 1
            if is_other:
                told["differ"].append(what)
        told["complete"] = True
    finally:
        # also where it is interrupted for taking too long
        print(json.dumps(told), flush=True)
    return int(bool(told["differ"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
