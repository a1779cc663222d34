"""Contenders of other libraries: PyTorch, DeepSpeed, optax on JAX, and Chainer."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np

from fastadam.bench import machine, settings
from fastadam.bench.arrays import Array
from fastadam.bench.contender import Contender, NotComparable, Unavailable, imported
from fastadam.bench.own import OnLink
from fastadam.bench.settings import Variant
from fastadam.cli.extras import load

__all__ = [
    "Chainer",
    "DeepSpeed",
    "FastadamTensors",
    "Optax",
    "Torch",
    "TorchForeach",
    "TorchFused",
    "TorchSingle",
    "hyperparameters",
    "tensor",
]


def tensor(array: Array) -> Any:
    """Return a tensor that shares an array's memory."""
    torch = imported("torch")
    # PyTorch knows no bfloat16 of NumPy's, but bits
    bits = np.dtype(f"int{8 * array.itemsize}")
    return torch.from_numpy(array.view(bits)).view(getattr(torch, array.dtype.name))


def hyperparameters(variant: Variant) -> dict[str, Any]:
    """Return those that all of PyTorch's optimizers take."""
    return {
        "lr": settings.ALPHA,
        "betas": settings.BETAS,
        "eps": settings.EPS,
        "weight_decay": settings.WEIGHT_DECAY if variant.decay else 0.0,
    }


class Torch(Contender):
    """PyTorch's AdamW with the decay, else Adam, on tensors with gradients in their ``grad``."""

    library: ClassVar[str | None] = "torch"
    device: ClassVar[str] = "cpu"
    # Which of its implementations.
    how: ClassVar[dict[str, bool]]

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        self.refuse(variant)
        # into memory that PyTorch has allocated, as a model's is
        self.parameters = [self.sent(p, copy=True).requires_grad_() for p in params]
        self.optimizer = self.make(variant)

    def sent(self, array: Array, copy: bool = False) -> Any:
        """Return a tensor where they are stepped."""
        return tensor(array).to(self.device, copy=copy)

    def refuse(self, variant: Variant) -> None:
        """Refuse a variant that there is not."""
        if variant.adabound:
            raise NotComparable("it has no AdaBound")

    def make(self, variant: Variant) -> Any:
        """Make the optimizer of `parameters`."""
        optim = imported("torch").optim
        kind = optim.AdamW if variant.decay else optim.Adam
        given = hyperparameters(variant) | {"amsgrad": variant.amsgrad} | self.how
        return kind(self.parameters, **given)

    def give(self, grads: list[Array]) -> None:
        """Put the gradients into the parameters."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = self.sent(grad)

    def give_anew(self, grads: list[Array]) -> None:
        """Put copies into the parameters, in memory that PyTorch allocates, as it does itself."""
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = self.sent(grad, copy=True)

    def step(self) -> None:
        """Step."""
        self.optimizer.step()

    def values(self) -> list[Array]:
        """Return copies, in float64."""
        return [p.detach().double().cpu().numpy() for p in self.parameters]

    def bytes_moved(self) -> int:
        """Return what must be read and written: in half types, its moments are of that type."""
        total = 0
        for p in self.parameters:
            state = [s for key, s in self.optimizer.state[p].items() if key != "step"]
            total += p.grad.nbytes + 2 * sum(each.nbytes for each in (p, *state))
        return total

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Set PyTorch's number."""
        imported("torch").set_num_threads(n)


class FastadamTensors(Torch):
    """The class of `fastadam.torch` that is the variant."""

    name: ClassVar[str] = "fastadam"
    # what it has beside PyTorch's arguments
    more: ClassVar[dict[str, float]] = {}

    def refuse(self, variant: Variant) -> None:
        """Refuse nothing: AdaBound is here."""

    def make(self, variant: Variant) -> Any:
        """Make the optimizer of `parameters`."""
        # PyTorch is here: if this is not, it is a fault of fastadam's
        library = importlib.import_module("fastadam.torch")
        if variant.adabound:
            kind = library.AMSBound if variant.amsgrad else library.AdaBound
        else:
            kind = library.AdamW if variant.decay else library.Adam
        given = hyperparameters(variant) | {"amsgrad": variant.amsgrad} | self.more
        return kind(self.parameters, **given)


class TorchFused(Torch):
    """One call for all tensors."""

    name: ClassVar[str] = "torch-fused"
    how: ClassVar[dict[str, bool]] = {"fused": True}


class TorchForeach(Torch):
    """An operation at a time for all tensors."""

    name: ClassVar[str] = "torch-foreach"
    how: ClassVar[dict[str, bool]] = {"foreach": True}


class TorchSingle(Torch):
    """A tensor at a time, an operation at a time: the default on the CPU."""

    name: ClassVar[str] = "torch-single"
    how: ClassVar[dict[str, bool]] = {"foreach": False, "fused": False}


class DeepSpeed(Torch):
    """DeepSpeed's CPUAdam, which steps PyTorch's tensors; its first use compiles it."""

    name: ClassVar[str] = "deepspeed"
    library: ClassVar[str | None] = "deepspeed"
    how: ClassVar[dict[str, bool]] = {"adamw_mode": True, "fp32_optimizer_states": True}

    def make(self, variant: Variant) -> Any:
        """Make the optimizer."""
        if variant.amsgrad:
            raise NotComparable("it takes amsgrad and ignores it")
        if any(p.dtype == imported("torch").float64 for p in self.parameters):
            raise NotComparable("it has no float64")
        kind = imported("deepspeed.ops.adam").DeepSpeedCPUAdam
        try:
            return kind(self.parameters, **hyperparameters(variant), **self.how)
        except Exception as error:
            # its compiler's, its loader's and its own errors are of many kinds
            why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise Unavailable(f"its CPUAdam could not be built here: {why}") from error

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Limit the OpenMP runtime that its extension has loaded."""
        super().set_threads(n)
        load("bench", "threadpoolctl").threadpool_limits(n, user_api="openmp")


class Optax(Contender):
    """optax in one jitted function that gives its arrays back to the next step."""

    name: ClassVar[str] = "optax"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        jax, optax = imported("jax"), imported("optax")
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
        cpus = machine.cpus()
        if n != cpus:
            raise NotComparable(f"XLA uses all {cpus} CPUs, and cannot be told otherwise")

    @classmethod
    def version(cls) -> str | None:
        """Name optax and JAX."""
        return f"optax {imported('optax').__version__} (jax {imported('jax').__version__})"


class Chainer(OnLink):
    """Chainer's own optimizers, on its links; array operations, on one thread."""

    name: ClassVar[str] = "chainer"
    library: ClassVar[str | None] = "chainer"
    modes: ClassVar[str] = "chainer"

    def __init__(self, variant: Variant, params: list[Array]) -> None:
        chainer = imported("chainer")
        # the class of the same name takes the hyperparameters of fastadam's that it has
        ours = settings.optimizer(variant)
        optimizer = getattr(chainer.optimizers, variant.kind.__name__)(
            alpha=ours.alpha, beta1=ours.beta1, beta2=ours.beta2, eps=ours.eps
        )
        if variant.decay:
            optimizer.weight_decay_rate = ours.weight_decay_rate
        self._set_up(optimizer, chainer.Link(), [chainer.Parameter(p) for p in params])
