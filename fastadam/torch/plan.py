"""What a step of an optimizer's tensors is, found once and kept as long as it holds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from fastadam.algorithms.adam import Coefficients
from fastadam.kernels.backend import is_gpu_array
from fastadam.kernels.cpu import _threads
from fastadam.kernels.memory import first_sharing
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.ops import Op
from fastadam.kernels.table import Step
from fastadam.torch._items import Items, all_same
from fastadam.torch._tensors import TensorSource
from fastadam.torch.clipping import Clipping, GpuNorm, Norm, clipped
from fastadam.torch.gpu import is_on_gpu
from fastadam.torch.groups import Numbers
from fastadam.torch.states import MASTER, STREAMS, StateChanges, is_half
from fastadam.torch.tensors import (
    Array,
    is_dense,
    is_sharded,
    local_of,
    named,
    no_memory,
    reader,
    refuse_tensor,
)
from fastadam.update.interrupt import DeferredInterrupt

__all__ = ["TensorPlan"]

Pair = tuple[torch.Tensor | None, Array | None]
_NONE: Pair = (None, None)


class _Row(NamedTuple):
    """One parameter that can be stepped."""

    name: str
    param: torch.Tensor
    group: int
    state: dict[str, Any]
    # the parameter, or a dense copy of it
    stepped: Pair


class TensorPlan:
    """The step of all parameters that have a gradient or a state.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its groups and states are read. States that are not there yet are put into it.
    decoupled : bool
        Whether weight decay is AdamW's in groups that do not say it.
    masters : bool
        Whether half-precision parameters have float32 masters.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If a parameter, gradient or state cannot be stepped: nothing has changed.
    """

    # whether anything is on a GPU
    _on_gpu = False
    # whether the step that has been read is to become part of a CUDA graph
    recording = False

    def __init__(self, optimizer: Any, decoupled: bool, masters: bool) -> None:
        # whether it may be used for another step
        self.lasts = True
        self._groups: list[dict[str, Any]] = optimizer.param_groups
        self._states = optimizer.state
        self._numbers = [
            Numbers(type(optimizer).__name__, i, group, decoupled)
            for i, group in enumerate(self._groups)
        ]
        self._masters = masters
        # whether a step may take more than one thread
        self._large = False
        # whether this process has only a part of some parameters
        self.sharded = False
        # parameters that are no dense memory, and the copies that are stepped
        self._copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        # the array of every parameter itself, and whether it is stepped where it lies
        self._arrays: list[tuple[Array, bool]] = []
        # places of gradients that stand for other numbers than those in memory
        self._odd: set[int] = set()
        self._steps: MultiTensorStep | None = None
        # group and number of each step that has been read
        self.sets: list[tuple[int, int]] = []
        # what is done to the gradients of each group, whether that is anything, and whether a group
        # has a beta of 0
        self._programs: list[list[Op]] = []
        self._seen: list[Items | None] = []
        self._changes = self._forgets = False
        changes = StateChanges(optimizer.state, masters)
        self._rows = self._found(optimizer, changes)
        self.names = [row.name for row in self._rows]
        if self._copies:
            self._refuse_shared()
        self._which: int | list[int] = (
            0 if len(self._groups) == 1 else [row.group for row in self._rows]
        )
        changes.make()
        try:
            entries = [(row.param, row.group, row.state, self._pairs(row)) for row in self._rows]
            self._source = TensorSource(reader(), self._groups, optimizer.state, entries)
            if entries:
                self._describe([[array for _, array in entry[3]] for entry in entries])
            if not self.refresh(optimizer):
                raise RuntimeError(
                    "parameters, gradients or states have changed while they were looked at"
                )
        except BaseException:
            changes.take_back()
            raise

    def _found(self, optimizer: Any, changes: StateChanges) -> list[_Row]:
        """Return everything that can be stepped."""
        rows = []
        for number, group in enumerate(self._groups):
            self._numbers[number].read()
            for i, param in enumerate(group["params"]):
                # on a GPU, and beside it, what has no gradient now is described when it has one
                if param.grad is None and (
                    self._on_gpu or is_on_gpu(param) or not optimizer.state.get(param)
                ):
                    continue
                name = named(self._groups, number, i)
                if param.grad is not None and param.grad.is_sparse:
                    raise RuntimeError(
                        "Adam does not support sparse gradients, please consider SparseAdam instead"
                    )
                pair = self._stepped(name, param)
                state = changes.state_of(name, param, self._numbers[number].amsgrad)
                rows.append(_Row(name, param, number, state, pair))
        return rows

    def _stepped(self, name: str, param: torch.Tensor) -> Pair:
        """Return what is stepped and its array: the parameter, or a dense copy in its place."""
        array = refuse_tensor(name, param, self._on_gpu)
        local = local_of(param)
        self.sharded = self.sharded or is_sharded(param)
        # on a GPU all are
        aligned = is_gpu_array(array) or bool(array.flags.aligned)
        in_place = is_dense(local) and aligned
        self._arrays.append((array, in_place))
        if in_place:
            return param, array
        with torch.no_grad():
            copied = torch.empty_like(local, requires_grad=False).copy_(local)
        self._copies.append((param, copied))
        return None, self._array_of(copied)

    def _refuse_shared(self) -> None:
        """Refuse a copy of what is stepped elsewhere, too: one step would undo the other."""
        shared = first_sharing(*map(list, zip(*self._arrays, strict=True)))
        if shared is not None:
            one, other = (self.names[i] for i in shared)
            raise ValueError(
                f"parameters {one!r} and {other!r} share memory, and one of them has gaps or is "
                "not aligned: it is stepped as a copy, which would undo the step of the other. "
                "Give the optimizer one of them, or clones"
            )

    def _pairs(self, row: _Row) -> list[Pair]:
        """Return tensors and arrays of a row, in the order of `TensorSource`."""
        used = STREAMS if self._numbers[row.group].amsgrad else STREAMS[:2]
        streams = [self._pair(row.state[key]) if key in used else _NONE for key in STREAMS]
        if self._masters and is_half(row.param):
            return [self._pair(row.state[MASTER]), *streams, row.stepped]
        return [row.stepped, *streams, _NONE]

    def _pair(self, tensor: torch.Tensor) -> Pair:
        return tensor, self._array_of(tensor)

    def _array_of(self, tensor: torch.Tensor) -> Array | None:
        """Return the array over a tensor that is where this steps tensors; None for others."""
        return reader().array_of(tensor, self._on_gpu)

    def _describe(self, arrays: list[list[Array | None]]) -> None:
        """Check everything, and lay out the step."""
        found: dict[tuple[int, int], Coefficients] = {}
        steps, halves = [], []
        for k, (row, (p, *streams, half)) in enumerate(zip(self._rows, arrays, strict=True)):
            key = row.group, int(row.state["step"].item()) + 1
            if key not in found:
                found[key] = self._numbers[row.group].coefficients(key[1])
            grad = None if row.param.grad is None else self._gradient(k, row.param.grad)
            assert p is not None
            steps.append(Step(row.name, p, grad, tuple(streams), found[key]))
            halves.append(half)
        self._steps = MultiTensorStep(self._source, steps, halves)
        self._large = sum(step.p.size for step in steps) >= _threads.SERIAL_BELOW

    def _gradient(self, k: int, grad: torch.Tensor) -> Array:
        """Return the array of a gradient, as it is or as NumPy can have it."""
        param = self._rows[k].param
        grad = self._local_gradient(k, grad)
        odd = grad.is_neg() or grad.is_conj()
        plain = grad.resolve_conj().resolve_neg() if odd else grad
        array = reader().array_of(plain)
        if array is None and grad.dtype == torch.bfloat16 and grad.device.type == "cpu":
            # exact, and without ml_dtypes
            odd = True
            array = reader().array_of(plain.float())
        if array is None:
            raise TypeError(f"the gradient of parameter {self.names[k]!r}: {no_memory(grad)}")
        if odd or is_sharded(param):
            # a DTensor's placement may be another one next time
            self._odd.add(k)
        return array

    def _local_gradient(self, k: int, grad: torch.Tensor) -> torch.Tensor:
        """Return the part of a gradient that this process has; refuse one placed elsewhere."""
        param = self._rows[k].param
        if is_sharded(grad) != is_sharded(param) or (
            is_sharded(grad) and grad.placements != param.placements
        ):
            raise RuntimeError(
                f"the gradient of parameter {self.names[k]!r} is placed as "
                f"{getattr(grad, 'placements', None)}, and the parameter as "
                f"{getattr(param, 'placements', None)}"
            )
        return local_of(grad)

    def refresh(self, optimizer: Any) -> bool:
        """Read everything for the next step; False if it is to be described anew.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The one that this was made of; its list of groups, or its states, may be others now.
        """
        if not self._read_counts(optimizer):
            return False
        if self._steps is None:
            return True
        if not self._take_gradients():
            return False
        if self._copies:
            with torch.no_grad():
                for param, copied in self._copies:
                    copied.copy_(local_of(param))
        return self._steps.refresh(self._coefficients())

    def _read_counts(self, optimizer: Any) -> bool:
        """Read groups, states and counts; False if these are not those that were described."""
        if (
            optimizer.master_weights is not self._masters
            or optimizer.param_groups is not self._groups
            or optimizer.state is not self._states
            or len(self._groups) != len(self._numbers)
        ):
            return False
        if not all_same(self._groups, self._seen):
            for numbers, group in zip(self._numbers, self._groups, strict=True):
                if numbers.group is not group:
                    return False
                numbers.read()
            self._seen = [numbers.seen for numbers in self._numbers]
            self._programs = [numbers.ops for numbers in self._numbers]
            self._changes = any(self._programs)
            self._forgets = any(numbers.forgotten for numbers in self._numbers)
        sets = self._source.begin()
        if sets is None:
            return False
        self.sets = sets
        return True

    def _coefficients(self) -> list[Coefficients]:
        """Return the scalars of the step that has been read."""
        return [self._numbers[i].coefficients(t) for i, t in self.sets]

    def _take_gradients(self) -> bool:
        """Make arrays of gradients that are not read as they are; False to describe all anew."""
        for k in self._odd:
            grad = self._rows[k].param.grad
            if grad is not None:
                self._source.replaced[k] = self._gradient(k, grad)
        return True

    @property
    def absent(self) -> list[int]:
        """The places of the parameters that have no gradient in it."""
        return self._source.absent

    def run(self, bounds: Clipping | None) -> Norm | GpuNorm | None:
        """Make the step that has been read, and return the norm if there is a bound of it.

        Parameters
        ----------
        bounds : Clipping or None
            Of the gradients.
        """
        steps = self._steps
        if steps is None:
            return None
        if self._large:
            steps.most_threads = torch.get_num_threads()
        norm = self._prepare(steps, bounds)
        if steps.in_c and not (self._copies or self._forgets):
            steps.step({}, {}, ())
            return norm
        # more than one call into C: signals wait until all is done
        with DeferredInterrupt():
            if self._forgets:
                self._forget()
            steps.step({}, {}, ())
            self._put_back()
        return norm

    def _prepare(self, steps: MultiTensorStep, bounds: Clipping | None) -> Norm | GpuNorm | None:
        """Say what the step does to the gradients on its way; return the norm, if it is bounded."""
        norm = None
        programs = self._programs
        if bounds is not None:
            programs, norm = clipped(steps, bounds, programs)
        if bounds is not None or self._changes:
            if not steps.program(programs, self._which, False):
                raise RuntimeError("the gradients cannot be changed on the way of this step")
        elif steps.prepared:
            steps.leave_gradients()
        return norm

    def _put_back(self) -> None:
        """Store the copies that were stepped in the place of parameters."""
        with torch.no_grad():
            for param, copied in self._copies:
                if param.grad is not None:
                    local_of(param).copy_(copied)

    def _forget(self) -> None:
        """Clear the moments whose beta is 0: rounding would keep a trace of them."""
        moments = [
            row.state[key]
            for row in self._rows
            if row.param.grad is not None
            for key in self._numbers[row.group].forgotten
        ]
        if moments:
            torch._foreach_zero_(moments)
