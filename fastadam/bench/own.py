"""Contenders that need NumPy alone: fastadam's two kinds of targets, and plain NumPy."""

from __future__ import annotations

from typing import ClassVar

from fastadam.bench import settings
from fastadam.bench.arrays import Array
from fastadam.bench.contender import Contender
from fastadam.bench.settings import Variant
from fastadam.cli.plain_numpy import PlainNumpyAdam
from fastadam.kernels.cpu.threads import set_num_threads
from fastadam.link import Link
from fastadam.model.parameter import Parameter

__all__ = ["FastadamArrays", "FastadamLink", "PlainNumpy"]


class FastadamArrays(Contender):
    """fastadam on a dict of arrays, with ``apply_gradients``."""

    name: ClassVar[str] = "fastadam"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        self._params = {f"p{i}": p for i, p in enumerate(params)}
        self.optimizer = settings.optimizer(variant, "pytorch").setup(self._params)

    def give(self, grads: list[Array]) -> None:
        """Put the gradients into a dict."""
        self._grads = dict(zip(self._params, grads, strict=True))

    def step(self) -> None:
        """Step."""
        self.optimizer.apply_gradients(self._grads)

    def values(self) -> list[Array]:
        """Return the arrays."""
        return list(self._params.values())

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Set fastadam's number."""
        set_num_threads(n)


class FastadamLink(Contender):
    """fastadam on the parameters of a `Link`, with ``update()`` after a backward pass."""

    name: ClassVar[str] = "fastadam-link"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        link = Link()
        self._params = [Parameter(p) for p in params]
        with link.init_scope():
            for i, param in enumerate(self._params):
                setattr(link, f"p{i}", param)
        self.optimizer = settings.optimizer(variant, "pytorch").setup(link)

    def give(self, grads: list[Array]) -> None:
        """Put the gradients where a backward pass puts them."""
        for param, grad in zip(self._params, grads, strict=True):
            param.grad = grad

    def step(self) -> None:
        """Step."""
        self.optimizer.update()

    def values(self) -> list[Array]:
        """Return the arrays."""
        return [array for param in self._params if (array := param.array) is not None]

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Set fastadam's number."""
        set_num_threads(n)


class PlainNumpy(Contender):
    """A dozen lines of array operations, on one thread."""

    name: ClassVar[str] = "numpy"
    modes: ClassVar[str] = "chainer"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        hyperparam = settings.optimizer(variant).hyperparam.get_dict()
        self._params = {f"p{i}": p for i, p in enumerate(params)}
        self._adam = PlainNumpyAdam(self._params, hyperparam)

    def give(self, grads: list[Array]) -> None:
        """Put the gradients into a dict."""
        self._grads = dict(zip(self._params, grads, strict=True))

    def step(self) -> None:
        """Step."""
        self._adam.step(self._grads)

    def values(self) -> list[Array]:
        """Return the arrays."""
        return list(self._params.values())
