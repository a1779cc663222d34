"""A module of PyTorch's as the target of ``setup``: its parameters by name, wherever they lie."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from fastadam.kernels.arrays import overlaps_itself
from fastadam.model.parameter import is_lent, peek_grad, put_grad
from fastadam.serializers.prepared import PreparedLoad
from fastadam.torch.stored import array_over
from fastadam.torch.tensors import Array, is_sharded, no_memory, reader, refuse_tensor
from fastadam.update.exclusive import add_aside
from fastadam.update.lender import Lender
from fastadam.update.rule import UpdateRule
from fastadam.update.target import ArrayTarget, Target

__all__ = ["ModuleTarget"]

# Tensor, address, dtype, shape, strides, and whether it requires a gradient.
_Noted = tuple[torch.Tensor, int, torch.dtype, tuple[int, ...], tuple[int, ...], bool]


class ModuleTarget(Target, Lender):
    """The parameters of a module, by the names that ``named_parameters()`` gives them.

    A name keeps its rule and state when its tensor, or the tensor's memory or dtype, becomes
    another one. What requires no gradient is frozen. Parameters that are uninitialised yet are not
    there yet.

    Parameters
    ----------
    module : torch.nn.Module
        The module, on the CPU.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If it has no parameters, or one that cannot be stepped here.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        # what is known of each tensor, and the array over it
        self._noted: dict[str, _Noted] = {}
        self._views: dict[str, Array] = {}
        self._inner: ArrayTarget | None = None
        # gradients that a backward pass has left multiplied, by path, and by what
        self._scaled: dict[str, tuple[weakref.ref[torch.Tensor], float]] = {}
        # during an update: each gradient, with the array over it, and whether hooks may write them
        self._taken: dict[str, tuple[Array, torch.Tensor]] = {}
        self._hooked = False
        self.refresh()

    @property
    def lender(self) -> Lender:  # type: ignore[override]
        """Return this; as an attribute, it would hold itself until the next garbage collection."""
        return self

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the parameters, those that have several names under each of them."""
        for name, tensor in self.module.named_parameters(remove_duplicate=False):
            trained = tensor.is_floating_point() or tensor.is_complex() or tensor.requires_grad
            if trained and not is_lazy(tensor):
                yield name, tensor

    def unchanged(self) -> bool:
        """Look at every parameter of every module in it."""
        noted = {name: _note(tensor) for name, tensor in self._tensors()}
        return _same(noted, self._noted)

    def is_settled(self) -> bool:
        """Tell that the parameters hold the arrays over the tensors, too."""
        return self.unchanged() and self._inner is not None and self._inner.is_settled()

    def refresh(self) -> None:
        """Take over tensors that were put in the place of others, and names that come and go."""
        noted = {name: _note(tensor) for name, tensor in self._tensors()}
        self._tell_of_others()
        if self._inner is not None and _same(noted, self._noted):
            self._inner.refresh()
            return
        if not noted:
            raise ValueError(
                f"the {type(self.module).__name__} has no parameters yet, so there is nothing to "
                "train; uninitialised ones are made by a first call of the module"
            )
        views: dict[str, Array] = {}
        of_tensor: dict[int, Array] = {}
        for name, note in noted.items():
            tensor = note[0]
            if id(tensor) not in of_tensor:
                before = self._noted.get(name)
                # what lies where it lay keeps its array
                same = before is not None and _alike(note, before)
                of_tensor[id(tensor)] = self._views[name] if same else _view(name, tensor)
            views[name] = of_tensor[id(tensor)]
        if self._inner is None:
            self._inner = ArrayTarget(dict(views))
        else:
            self._walk(self._inner, views)
        for path, param in self._inner.parameters.items():
            param.frozen = not noted[path][0].requires_grad
            old, rule = self._views.get(path), param.update_rule
            cast = old is not None and old.dtype != param.array.dtype
            if cast and isinstance(rule, UpdateRule):
                rule.follow_dtype(param)
        self.__dict__.update(
            _noted=noted,
            _views=views,
            parameters=dict(self._inner.parameters),
            aliases=dict(self._inner.aliases),
        )

    def _walk(self, inner: ArrayTarget, views: dict[str, Array]) -> None:
        """Let the target of arrays take over other ones, or leave it as it was."""
        inner.tree.clear()
        inner.tree.update(views)
        try:
            inner.refresh()
        except BaseException:
            inner.tree.clear()
            inner.tree.update(self._views)
            raise

    def ordered(self, grads: Any) -> list[Any] | None:
        """Match a mapping from name to gradient."""
        assert self._inner is not None
        found = self._inner.ordered(self._matched(grads))
        return None if found is None else self._filled(found)

    def gradients(self, grads: Any) -> dict[str, Any]:
        """Match a mapping from name to gradient, and say what does not fit."""
        assert self._inner is not None
        if not isinstance(grads, Mapping):
            raise TypeError(
                "the gradients of a module are a mapping from the name of a parameter to its "
                f"gradient, such as {{{next(iter(self.parameters))!r}: ...}}, not "
                f"{type(grads).__name__}"
            )
        found = self._inner.gradients(self._matched(grads))
        return dict(zip(found, self._filled(list(found.values())), strict=True))

    def _matched(self, grads: Any) -> Any:
        """Return gradients as arrays; names that nobody has a gradient for may be missing."""
        if not isinstance(grads, Mapping):
            return grads
        found = {
            name: _gradient(str(name), grad) if isinstance(grad, torch.Tensor) else grad
            for name, grad in grads.items()
        }
        optional = [*self.aliases, *(p for p, param in self.parameters.items() if param.frozen)]
        return {**dict.fromkeys(optional), **found}

    def _filled(self, found: list[Any]) -> list[Any]:
        """Return gradients with zeros, which take no memory, for what is frozen."""
        params = self.parameters.values()
        return [
            _zeros(param.array) if param.frozen else grad
            for param, grad in zip(params, found, strict=True)
        ]

    def backward(self, loss: Any, loss_scale: float | None) -> Any:
        """Compute the gradients of a loss, multiplied by the scale, and return it detached."""
        (loss if loss_scale is None else loss * loss_scale).backward()
        self._scaled = {}
        if loss_scale is not None:
            for path in self.parameters:
                grad = self._noted[path][0].grad
                if grad is not None:
                    self._scaled[path] = weakref.ref(grad), loss_scale
        return loss.detach()

    def clear_gradients(self, to_none: bool) -> None:
        """Clear the gradients of the module."""
        self.module.zero_grad(set_to_none=to_none)

    def take_gradients(self, hooked: bool) -> None:
        """Give the parameters the arrays over the gradients of the tensors."""
        self._taken, self._hooked = {}, hooked
        for path, param in self.parameters.items():
            grad = self._noted[path][0].grad
            if param.frozen:
                # which is looked at, and not used
                param.lend_grad(_zeros(param.array))
            elif grad is None:
                param.cleargrad()
            else:
                array, own = _gradient(path, grad), param.array
                self._taken[path] = array, grad
                fits = array.dtype == own.dtype and array.shape == own.shape
                apart = array.flags.forc or not overlaps_itself(array)
                if fits and apart and array.flags.writeable:
                    put_grad(param, array)
                else:
                    # which is copied before it is written; what does not fit at all is refused
                    param.lend_grad(array)
                left, scale = self._scaled.get(path, (None, None))
                param._loss_scale = scale if left is not None and left() is grad else None

    def written(self, paths: Iterable[str]) -> None:
        """Let autograd know of what has been written, and of nothing else: it would complain."""
        reader().raise_versions([self._noted[path][0] for path in paths])

    def release(self) -> None:
        """Let gradients go, and let autograd know of those that may have been written.

        Those that are still multiplied by a loss scale stay noted.
        """
        written = []
        for path, param in self.parameters.items():
            array, grad = self._taken.get(path, (None, None))
            if grad is not None and peek_grad(param) is array and not is_lent(param):
                scaled = self._scaled.get(path)
                # it was divided where it lies
                divided = scaled is not None and scaled[0]() is grad and param._loss_scale is None
                if divided:
                    del self._scaled[path]
                if divided or self._hooked:
                    written.append(grad)
            param.cleargrad()
        self._taken = {}
        reader().raise_versions(written)

    def finish(self) -> None:
        """Write what rules and hooks have put in the place of arrays into the tensors."""
        assert self._inner is not None
        self._tell_of_others()
        self._inner.finish()

    def _tell_of_others(self) -> None:
        """Let autograd know of tensors that take values of arrays that were put into parameters."""
        params, views = self.parameters.items(), self._views
        self.written([p for p, param in params if param.array is not views.get(p, param.array)])

    def kept(self) -> dict[str, Array]:
        """Return what else ``state_dict()`` has: buffers, and parameters that cannot be trained."""
        return {name: array_over(f"buffer {name!r}", value) for name, value in self._others()}

    def _others(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors that are saved and not trained."""
        for name, value in self._of_state_dict():
            if name not in self._noted and not is_lazy(value):
                yield name, value

    def _of_state_dict(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield parameters and persistent buffers; what the module makes when it is saved is none.

        The tensor of a ``get_extra_state()`` may be a new one each time: nobody would have what is
        loaded into it.
        """
        for name, value in self.module.state_dict(keep_vars=True).items():
            if isinstance(value, torch.Tensor) and name.rpartition(".")[2] != "_extra_state":
                yield name, value

    def uninitialised(self) -> list[str]:
        """Return the names of parameters and buffers that a first call of the module makes."""
        return [name for name, value in self._of_state_dict() if is_lazy(value)]

    def prepare_written(self, prepared: PreparedLoad) -> None:
        """Let autograd know, just before, that all that is saved is written."""
        tensors = [note[0] for note in self._noted.values()]
        tensors += [tensor for _, tensor in self._others()]
        prepared.call(partial(reader().raise_versions, tensors), lambda: _nothing)

    def __getstate__(self) -> dict[str, Any]:
        # a copy has other tensors
        return {**self.__dict__, "_noted": {}, "_views": {}, "_scaled": {}, "_taken": {}}


def _note(tensor: torch.Tensor) -> _Noted:
    """Return what is compared of a tensor."""
    place = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad
    return tensor, *place


def _alike(note: _Noted, before: _Noted) -> bool:
    """Tell whether a tensor lies where it lay, or another one in its place."""
    return note[1:5] == before[1:5] and note[0] is before[0]


def _same(noted: dict[str, _Noted], before: dict[str, _Noted]) -> bool:
    """Tell whether names, in their order, and tensors are what they were."""
    return list(noted) == list(before) and all(
        note[0] is old[0] and note[1:] == old[1:]
        for note, old in zip(noted.values(), before.values(), strict=True)
    )


def _view(name: str, tensor: torch.Tensor) -> Array:
    """Return the array over a parameter; refuse one that cannot be stepped."""
    if is_sharded(tensor):
        raise TypeError(
            f"parameter {name!r} is a {type(tensor).__name__}, of which this process has a part: "
            "step it with the optimizers of fastadam.torch"
        )
    refuse_tensor(name, tensor)
    # which keeps the memory, also when the parameter is given another
    found = reader().array_of(tensor.detach())
    assert found is not None
    return found


def _gradient(name: str, grad: torch.Tensor) -> Array:
    """Return the array over a gradient, or over a copy where it stands for other numbers."""
    if grad.layout is not torch.strided or is_sharded(grad):
        raise TypeError(
            f"the gradient of parameter {name!r} is a tensor of {grad.layout}: only dense ones "
            "can be used here"
        )
    plain = grad.detach()
    if plain.is_neg() or plain.is_conj():
        plain = plain.resolve_conj().resolve_neg()
    found = reader().array_of(plain)
    if found is None:
        raise TypeError(f"the gradient of parameter {name!r}: {no_memory(grad)}")
    return found


def _zeros(array: Array) -> Array:
    """Return zeros in the shape of an array, which take no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _nothing() -> None:
    """Take nothing back."""


def _may_be_compiled() -> bool:
    """Tell whether torch.compile has been used, or could have been.

    What calls an update may be compiled without the update, and goes on with what that calls: so
    it is not enough to ask, here, whether a graph is being made.
    """
    return "torch._dynamo" in sys.modules


@torch._disable_dynamo
def _untraced(call: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
    """Make a call beside a graph that is being compiled."""
    return call(*args, **kwds)


add_aside(_may_be_compiled, _untraced)
