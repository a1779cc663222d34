"""Arrays of a case, and how much memory there is for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM
from fastadam.bench import machine
from fastadam.bench.cases import Case
from fastadam.bench.settings import Variant
from fastadam.cli.extras import load
from fastadam.kernels.dtypes import computing_dtype

__all__ = [
    "Array",
    "dtype_names",
    "dtype_of",
    "dtypes",
    "free_bytes",
    "gradient_bytes",
    "gradient_dtypes",
    "gradients",
    "label",
    "parameters",
    "state_bytes",
]

Array = npt.NDArray[Any]

# Random numbers are made once for so many elements, and repeated.
_BLOCK = 1 << 16


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype of a name, bfloat16 too.

    Raises
    ------
    MissingExtra
        If ml_dtypes is needed and not installed.
    """
    if name == "bfloat16":
        name = load("bfloat16", "ml_dtypes").bfloat16
    return np.dtype(name)


def dtypes(case: Case, dtype: str | None) -> list[np.dtype[Any]]:
    """Return the dtype of every tensor: the run's, or where that is None the tensor's own."""
    return [dtype_of(dtype or tensor.dtype or "float32") for tensor in case.tensors]


def dtype_names(case: Case, dtype: str | None) -> list[str]:
    """Return the names of the dtypes of a case, each once."""
    return sorted({kind.name for kind in dtypes(case, dtype)})


def gradient_dtypes(case: Case, dtype: str | None) -> list[np.dtype[Any]]:
    """Return the dtype of the gradient of every tensor."""
    return [
        dtype_of(dtype or tensor.gradient or tensor.dtype or "float32") for tensor in case.tensors
    ]


def label(case: Case, dtype: str | None) -> str:
    """Name the dtypes of a case, and those of its gradients where these are others."""
    own = " ".join(dtype_names(case, dtype))
    gradient = " ".join(sorted({kind.name for kind in gradient_dtypes(case, dtype)}))
    return own if gradient == own else f"{own}, {gradient} gradients"


def parameters(case: Case, dtype: str | None, seed: int = 0) -> list[Array]:
    """Make parameters of about 0.03: normal numbers, the same for the same seed."""
    return _arrays(case, dtypes(case, dtype), 0.03, seed)


def gradients(case: Case, dtype: str | None, seed: int = 1) -> list[Array]:
    """Make gradients of about 0.3: their squares are far from overflow and from underflow."""
    return _arrays(case, gradient_dtypes(case, dtype), 0.3, seed)


def _arrays(case: Case, kinds: list[np.dtype[Any]], size: float, seed: int) -> list[Array]:
    """Fill arrays with a repeated block of numbers of both signs, none of them near 0."""
    random = np.random.default_rng(seed)
    block = random.uniform(0.5, 1.5, _BLOCK) * random.choice([-size, size], _BLOCK)
    made = []
    for tensor, kind in zip(case.tensors, kinds, strict=True):
        # from another place on for each
        numbers = np.roll(block.astype(kind), -int(random.integers(_BLOCK)))
        made.append(np.resize(numbers[: tensor.size], tensor.shape))
    return made


def state_bytes(case: Case, dtype: str | None, variant: Variant) -> tuple[int, int]:
    """Return how many bytes the parameters of a case take, and how many their state."""
    n_streams = len(ADAM.needed(variant))
    stored = state = 0
    for tensor, kind in zip(case.tensors, dtypes(case, dtype), strict=True):
        computing = computing_dtype(kind)
        assert computing is not None
        stored += tensor.size * kind.itemsize
        state += tensor.size * computing.itemsize * n_streams
    return stored, state


def gradient_bytes(case: Case, dtype: str | None) -> int:
    """Return how many bytes the gradients of a case take."""
    kinds = gradient_dtypes(case, dtype)
    return sum(t.size * kind.itemsize for t, kind in zip(case.tensors, kinds, strict=True))


def free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return how much memory programs can still get; None where the system does not say."""
    kibibytes = machine.found(meminfo, r"^MemAvailable:\s*(\d+)")
    return None if kibibytes is None else int(kibibytes) * 1024
