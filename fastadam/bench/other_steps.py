"""optax on JAX, and Chainer's own Adam."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any, ClassVar

from fastadam.bench import settings
from fastadam.bench.arrays import Array
from fastadam.bench.contender import Contender, NotComparable, Unavailable
from fastadam.bench.settings import Variant

__all__ = ["Chainer", "Optax"]


class Optax(Contender):
    """optax in one jitted function that gives its arrays back to the next step."""

    name: ClassVar[str] = "optax"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        jax, optax = _jax(), _optax()
        if variant.adabound:
            raise NotComparable("it has no AdaBound")
        if variant.amsgrad:
            raise NotComparable("its AMSGrad corrects the bias before the maximum: other numbers")
        if any(p.dtype == float for p in params):
            jax.config.update("jax_enable_x64", True)
        rates = {"b1": settings.BETAS[0], "b2": settings.BETAS[1], "eps": settings.EPS}
        if variant.decay:
            chain = optax.adamw(settings.ALPHA, weight_decay=settings.WEIGHT_DECAY, **rates)
        else:
            chain = optax.adam(settings.ALPHA, **rates)

        def one_step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = chain.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self._jax = jax
        self._one_step = jax.jit(one_step, donate_argnums=(0, 1))
        self._params = [jax.numpy.array(p) for p in params]
        self._state = chain.init(self._params)

    def give(self, grads: list[Array]) -> None:
        """Copy the gradients into arrays of JAX."""
        self._grads = [self._jax.numpy.array(g) for g in grads]
        self._jax.block_until_ready(self._grads)

    def step(self) -> None:
        """Step, and wait for the result."""
        self._params, self._state = self._one_step(self._params, self._state, self._grads)
        self._jax.block_until_ready((self._params, self._state))

    def values(self) -> list[Array]:
        """Return copies."""
        return [self._jax.device_get(p) for p in self._params]

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Refuse what XLA does not do: it takes all the CPUs that it found when it started."""
        _optax()
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if n != cpus:
            raise NotComparable(f"XLA uses all {cpus} CPUs, and cannot be told otherwise")

    @classmethod
    def version(cls) -> str | None:
        """Name optax and JAX."""
        return f"optax {_optax().__version__} (jax {_jax().__version__})"


class Chainer(Contender):
    """Chainer's own optimizers, on its links; array operations, on one thread."""

    name: ClassVar[str] = "chainer"
    modes: ClassVar[str] = "chainer"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        chainer = _chainer()
        link = chainer.Link()
        self._params = [chainer.Parameter(p) for p in params]
        with link.init_scope():
            for i, param in enumerate(self._params):
                setattr(link, f"p{i}", param)
        # the class of the same name takes the hyperparameters of fastadam's that it has
        ours = settings.optimizer(variant)
        self._optimizer = getattr(chainer.optimizers, variant.kind.__name__)(
            alpha=ours.alpha, beta1=ours.beta1, beta2=ours.beta2, eps=ours.eps
        )
        if variant.decay:
            self._optimizer.weight_decay_rate = ours.weight_decay_rate
        self._optimizer.setup(link)

    def give(self, grads: list[Array]) -> None:
        """Put the gradients where a backward pass puts them."""
        for param, grad in zip(self._params, grads, strict=True):
            param.grad = grad

    def step(self) -> None:
        """Step."""
        self._optimizer.update()

    def values(self) -> list[Array]:
        """Return the arrays."""
        return [param.array for param in self._params]

    @classmethod
    def version(cls) -> str | None:
        """Name Chainer."""
        return f"chainer {_chainer().__version__}"


def _jax() -> Any:
    """Import JAX, or say how to get it."""
    return _imported("jax", "pip install optax jax")


_CHAINER = (
    'pip install "setuptools<81" "chainer==7.8.1" "numpy==1.26.4" (an environment of its own)'
)


def _optax() -> Any:
    """Import optax, or say how to get it."""
    return _imported("optax", "pip install optax jax")


def _chainer() -> Any:
    """Import Chainer, or say how to get it."""
    return _imported("chainer", _CHAINER)


def _imported(module: str, install: str) -> Any:
    """Import a module, without its warnings about what is old in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError:
        raise Unavailable(f"not installed: {install}") from None
    except Exception as error:
        # an old Chainer beside a new NumPy fails in many ways
        raise Unavailable(f"cannot be imported: {type(error).__name__}: {error}") from error
