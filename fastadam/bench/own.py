"""Contenders that need NumPy alone: fastadam's two kinds of targets, and plain NumPy."""

from __future__ import annotations

from typing import Any, ClassVar

from fastadam.bench import settings
from fastadam.bench.arrays import Array
from fastadam.bench.contender import Contender
from fastadam.bench.settings import Variant
from fastadam.cli.plain_numpy import PlainNumpyAdam
from fastadam.link import Link
from fastadam.model.parameter import Parameter

__all__ = ["FastadamArrays", "FastadamLink", "OnLink", "PlainNumpy"]


class _OnDict(Contender):
    """An optimizer of a dict of arrays, which gets the gradients in another."""

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        self.params = {f"p{i}": p for i, p in enumerate(params)}

    def give(self, grads: list[Array]) -> None:
        """Put the gradients into a dict."""
        self.grads = dict(zip(self.params, grads, strict=True))

    def values(self) -> list[Array]:
        """Return the arrays."""
        return list(self.params.values())


class FastadamArrays(_OnDict):
    """fastadam on a dict of arrays, with ``apply_gradients``."""

    name: ClassVar[str] = "fastadam"
    mixes: ClassVar[bool] = True

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        super().__init__(variant, params)
        self.optimizer = settings.optimizer(variant, "pytorch").setup(self.params)

    def step(self) -> None:
        """Step."""
        self.optimizer.apply_gradients(self.grads)


class PlainNumpy(_OnDict):
    """A dozen lines of array operations, on one thread."""

    name: ClassVar[str] = "numpy"
    modes: ClassVar[str] = "chainer"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        super().__init__(variant, params)
        hyperparam = settings.optimizer(variant).hyperparam.get_dict()
        self.optimizer = PlainNumpyAdam(self.params, hyperparam)

    def step(self) -> None:
        """Step."""
        self.optimizer.step(self.grads)


class OnLink(Contender):
    """An optimizer of a link, with ``update()`` after a backward pass: fastadam's or Chainer's."""

    def _set_up(self, optimizer: Any, link: Any, parameters: list[Any]) -> None:
        """Put parameters into a link, and the link into the optimizer."""
        with link.init_scope():
            for i, parameter in enumerate(parameters):
                setattr(link, f"p{i}", parameter)
        optimizer.setup(link)
        self.optimizer, self.parameters = optimizer, parameters

    def give(self, grads: list[Array]) -> None:
        """Put the gradients where a backward pass puts them."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad

    def step(self) -> None:
        """Step."""
        self.optimizer.update()

    def values(self) -> list[Array]:
        """Return the arrays."""
        return [parameter.array for parameter in self.parameters]


class FastadamLink(OnLink):
    """fastadam on the parameters of a `Link`."""

    name: ClassVar[str] = "fastadam-link"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        optimizer = settings.optimizer(variant, "pytorch")
        self._set_up(optimizer, Link(), [Parameter(p) for p in params])
