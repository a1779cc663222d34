"""PyTorch's AdamW in its three implementations, and DeepSpeed's, which steps PyTorch's tensors."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, ClassVar

import numpy as np

from fastadam.bench import settings
from fastadam.bench.arrays import Array
from fastadam.bench.contender import Contender, NotComparable, Unavailable
from fastadam.bench.settings import Variant
from fastadam.cli.extras import load

__all__ = ["DeepSpeed", "TorchForeach", "TorchFused", "TorchSingle", "tensor", "torch"]


def torch() -> Any:
    """Import PyTorch, or say how to get it."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        raise Unavailable("not installed: pip install torch==2.13.0") from None


def tensor(array: Array) -> Any:
    """Return a tensor that shares an array's memory."""
    library = torch()
    # PyTorch knows no bfloat16 of NumPy's, but bits
    bits = np.dtype(f"int{8 * array.itemsize}")
    return library.from_numpy(array.view(bits)).view(getattr(library, array.dtype.name))


class _TorchTensors(Contender):
    """Parameters that are tensors, with gradients in their ``grad``."""

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        if variant.adabound:
            raise NotComparable("it has no AdaBound")
        # into memory that PyTorch has allocated, as a model's is
        self.parameters = [tensor(p).clone().requires_grad_() for p in params]
        self.optimizer = self.make(variant)

    def make(self, variant: Variant) -> Any:
        """Make the optimizer of `parameters`."""
        raise NotImplementedError

    def give(self, grads: list[Array]) -> None:
        """Put the gradients into the parameters."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = tensor(grad)

    def step(self) -> None:
        """Step."""
        self.optimizer.step()

    def values(self) -> list[Array]:
        """Return copies, in float64."""
        return [p.detach().double().numpy() for p in self.parameters]

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Set PyTorch's number."""
        torch().set_num_threads(n)

    @classmethod
    def version(cls) -> str | None:
        """Name PyTorch."""
        return f"torch {torch().__version__}"


def adam(variant: Variant, parameters: Any, **how: bool) -> Any:
    """Make PyTorch's optimizer of a variant: AdamW with the decay, else Adam."""
    library = torch()
    kind = library.optim.AdamW if variant.decay else library.optim.Adam
    return kind(
        parameters,
        lr=settings.ALPHA,
        betas=settings.BETAS,
        eps=settings.EPS,
        weight_decay=settings.WEIGHT_DECAY if variant.decay else 0.0,
        amsgrad=variant.amsgrad,
        **how,
    )


class TorchFused(_TorchTensors):
    """One call for all tensors, with ``fused=True``."""

    name: ClassVar[str] = "torch-fused"

    def make(self, variant: Variant) -> Any:
        """Make the optimizer."""
        return adam(variant, self.parameters, fused=True)


class TorchForeach(_TorchTensors):
    """An operation at a time for all tensors, with ``foreach=True``."""

    name: ClassVar[str] = "torch-foreach"

    def make(self, variant: Variant) -> Any:
        """Make the optimizer."""
        return adam(variant, self.parameters, foreach=True)


class TorchSingle(_TorchTensors):
    """A tensor at a time, an operation at a time: the default on the CPU."""

    name: ClassVar[str] = "torch-single"

    def make(self, variant: Variant) -> Any:
        """Make the optimizer."""
        return adam(variant, self.parameters, foreach=False, fused=False)


class DeepSpeed(_TorchTensors):
    """DeepSpeed's CPUAdam, which its first use compiles."""

    name: ClassVar[str] = "deepspeed"

    def make(self, variant: Variant) -> Any:
        """Make the optimizer."""
        if variant.amsgrad:
            raise NotComparable("it takes amsgrad and ignores it")
        if any(p.dtype == torch().float64 for p in self.parameters):
            raise NotComparable("it has no float64")
        kind = _deepspeed().DeepSpeedCPUAdam
        try:
            return kind(
                self.parameters,
                lr=settings.ALPHA,
                betas=settings.BETAS,
                eps=settings.EPS,
                weight_decay=settings.WEIGHT_DECAY if variant.decay else 0.0,
                adamw_mode=True,
                fp32_optimizer_states=True,
            )
        except Exception as error:
            # its compiler's, its loader's and its own errors are of many kinds
            raise Unavailable(
                f"its CPUAdam could not be built here: {_first_line(error)}"
            ) from error

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Limit the OpenMP runtime that its extension has loaded."""
        super().set_threads(n)
        load("bench", "threadpoolctl").threadpool_limits(n, user_api="openmp")

    @classmethod
    def version(cls) -> str | None:
        """Name DeepSpeed and PyTorch."""
        _deepspeed()
        found = importlib.import_module("deepspeed").__version__
        return f"deepspeed {found}"


def _deepspeed() -> Any:
    """Import DeepSpeed's optimizers, or say how to get them."""
    torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("deepspeed.ops.adam")
    except ModuleNotFoundError:
        raise Unavailable("not installed: pip install deepspeed ninja") from None


def _first_line(error: Exception) -> str:
    """Spell an error in one line, with its type."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
