"""The descriptor table of parameters on one GPU that one launch steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.kernels._source import Source
from fastadam.kernels.arrays import check_arrays, check_scalars
from fastadam.kernels.backend import (
    address,
    capturing,
    current_stream,
    device_of,
    get_array_module,
    on_device,
)
from fastadam.kernels.dtypes import computing_dtype, stored
from fastadam.kernels.gpu._tensors import DeviceTensors, can_take, set_scalars
from fastadam.kernels.gpu.engine import (
    KeptLaunch,
    Launch,
    blocks_of,
    c_flag,
    c_name,
    scalars_dtype,
)
from fastadam.kernels.gpu.sums import GpuSquares
from fastadam.kernels.gpu.uploads import DeviceTable, Recording, follow_stream, reserve, upload
from fastadam.kernels.memory import extent, extents
from fastadam.kernels.table import N_COEFFICIENTS, Step

__all__ = ["TENSOR", "GpuTable", "Written", "gpu_key"]

Array = npt.NDArray[Any]

# What is done to a gradient before its step, as gpu/source.py calls it: nothing; g / scale * rate,
# which the step alone sees; the same, written in the place of g.
AS_IT_IS, PREPARED, WRITTEN = "AS_IT_IS", "PREPARED", "WRITTEN"

# One row, as gpu/source.py spells it.
TENSOR = np.dtype(
    [(name, np.uint64) for name in ("p", *ADAM.state, "half", "half_type", "n", "start", "row")]
)


def gpu_key(step: Step) -> tuple[Any, ...]:
    """Return what steps must share to be made in one launch: device, types and variant.

    Raises
    ------
    TypeError, ValueError
        As `check_arrays`.
    """
    check_arrays(*step)
    computing = cast("np.dtype[Any]", computing_dtype(step.p.dtype))
    check_scalars(step.name, step.coefficients, computing)
    p, g = c_name(step.p.dtype), c_name(_taken(step.g.dtype, computing))
    return (device_of(step.p), c_name(computing), p, g, *flags_of(step.coefficients))


def flags_of(coefficients: Coefficients) -> tuple[bool, ...]:
    """Return the flags that choose the loop, in the order of the kernel's template arguments."""
    return tuple(bool(flag) for flag in coefficients[N_COEFFICIENTS:])


def _taken(g: np.dtype[Any], computing: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a gradient is read: its own, or that of the computation."""
    half = computing == np.float32 and stored(g)
    return g if half else computing


class Written(NamedTuple):
    """Where the arrays that a step writes begin, ascending, and the greatest end so far."""

    low: npt.NDArray[np.uintp]
    high: npt.NDArray[np.uintp]

    @classmethod
    def by(cls, arrays: Sequence[Any]) -> Self:
        """Note where arrays lie, on the CPU and on GPUs."""
        low, high = extents(arrays)
        order = np.argsort(low)
        return cls(low[order], np.maximum.accumulate(high[order]))

    def has_part(self, array: Any) -> bool:
        """Tell whether an array reaches into one of them."""
        begin, end = extent(array)
        # those that begin before its end
        before = np.searchsorted(self.low, end, side="left")
        return bool(begin != end and before and self.high[before - 1] > begin)


class GpuTable:
    """The table of steps that share a `gpu_key`, and at most SETS sets of coefficients.

    What `Table` does on the CPU, it does on a GPU; `indices` and `numbers` are as there.
    """

    def __init__(
        self, steps: list[Step], indices: list[int], numbers: dict[int, int], source: Source
    ) -> None:
        self.steps = steps
        self._source = source
        self.indices = indices
        self.device, *types = gpu_key(steps[0])
        storage, self._flags = types[:3], tuple(types[3:])
        self.types = (*storage, *map(c_flag, self._flags))
        self._streams = ADAM.needed(steps[0].coefficients)
        self.computing = cast("np.dtype[Any]", computing_dtype(steps[0].p.dtype))
        first = {id(step.coefficients): step.coefficients for step in steps}
        self.sets = [numbers[key] for key in first]
        rows = {key: row for row, key in enumerate(first)}
        self.scalars = np.zeros(1, scalars_dtype(storage[0]))
        self._scalar_rows = self.scalars["rows"][0]
        set_scalars(self._scalar_rows, list(first.values()))
        self._least = float(np.finfo(self.computing).tiny)
        # arrays without a dense layout of their own are stepped in dense copies
        self._dense = [_dense(step, _taken(step.g.dtype, self.computing)) for step in steps]
        pairs = zip(steps, self._dense, strict=True)
        self.strided = [i for i, (step, dense) in enumerate(pairs) if not _same(step, dense)]
        self.table = np.zeros(len(steps), TENSOR)
        self.sizes = [step.p.size for step in steps]
        self.total = sum(self.sizes)
        self.chunk, self.table["start"], self._blocks = blocks_of(self.sizes, self.device)
        self.table["n"] = self.sizes
        self.table["row"] = [rows[id(step.coefficients)] for step in steps]
        self.addresses = np.empty(len(steps), np.uint64)
        self._describe()
        self._prepare, self._rate = AS_IT_IS, None
        # whether any of the parameters is a float32 master
        self._masters = c_flag(False)
        self._rows: DeviceTensors | None = None
        self._g_dtype: np.dtype[Any] | None = None
        self._squares: GpuSquares | None = None
        self._launch = KeptLaunch("adam", self.device)
        # where all graphs that steps were captured in read the scalars of the next step, and the
        # stream in whose order this memory is had
        self._replayed: tuple[Any, Any] | None = None
        # of the graph that is being captured
        self.recording: Recording | None = None
        self._on_gpu = {
            name: DeviceTable(self.device) for name in ("tensors", "gradients", "blocks", "rate")
        }

    def run_anew(self, serial: bool) -> None:
        """Step the rows as they were described, in one launch; where they overlap, in one each."""
        if serial:
            for step in self._dense:
                GpuTable([step], [0], {id(step.coefficients): 0}, self._source).run()
        else:
            self.run()
        for i in self.strided:
            self._write_back(i)

    def run(self, replayed: Any = None) -> None:
        """Launch the step of all rows; with scalars that are on the GPU, if they are given."""
        self._launch.run(self._how(), len(self._blocks), self._arguments(replayed))

    def launch(self) -> Launch | None:
        """Return the launch of the step, ready for the current stream; None if there is nothing."""
        return self._launch.of(self._how(), len(self._blocks), self._arguments(None))

    def _how(self) -> tuple[str, ...]:
        """Return the template arguments of the step."""
        return *self.types, self._prepare, self._masters

    def _arguments(self, replayed: Any) -> tuple[Any, ...]:
        """Return what the step is launched with; what has not changed is the same object."""
        recording, on_gpu = self.recording, self._on_gpu
        stream = None if recording is not None else current_stream(self.device)
        # what is kept differs from step to step in the gradients' addresses alone
        rows = self._rows
        fixed, version = (None, None) if rows is None else (0, rows.version)
        return (
            on_gpu["tensors"].put(self.table, recording, fixed, stream),
            on_gpu["gradients"].put(self.addresses, recording, version, stream),
            on_gpu["blocks"].put(self._blocks, recording, fixed, stream),
            self.chunk,
            self._rate,
            replayed,
            self.scalars,
        )

    def reserve(self) -> None:
        """Have the memory that the next graphs need."""
        self._on_gpu["gradients"].reserve(self.addresses.nbytes)
        if self._replayed is None:
            self._replayed = reserve(self.device, self.scalars.nbytes)
            if not capturing(self.device):
                self._end_step()

    def capture(self) -> None:
        """Launch the step into the graph that is being captured."""
        if self._replayed is None:
            self.reserve()
        assert self._replayed is not None
        self.run(self._replayed[0])
        self._end_step()

    def _end_step(self) -> None:
        """Say, where graphs read it, that no step is due until `write_scalars` has said so."""
        assert self._replayed is not None
        due, offset = self.scalars.dtype.fields["due"]
        with on_device(self.device):
            self._replayed[0][offset:].data.memset_async(0, due.itemsize)

    def write_scalars(self) -> None:
        """Put the scalars that `follow` has taken over where graphs read them.

        What gradients are divided by is not one of them: each graph has the number of its capture.
        """
        assert self._replayed is not None
        memory, stream = self._replayed
        with on_device(self.device):
            follow_stream(stream)
            self.scalars["due"] = 1
            upload(memory, self.scalars.tobytes())

    def _write_back(self, i: int) -> None:
        """Write what was stepped in dense copies to the arrays themselves."""
        module: Any = get_array_module(self.steps[i].p)
        with on_device(self.device):
            own, dense = self.steps[i].named(), self._dense[i].named()
            for key, array in own.items():
                if key != "g" and array is not dense[key]:
                    module.copyto(array, dense[key])

    def keep(self, low_precision: Sequence[Any], written: Written) -> None:
        """Make ready for `refresh`: what `can_be_kept` is from now on."""
        steps = self.steps
        # masters were rounded after this step, but are within the next: gradients are looked at
        # again, wherever they are
        self.addresses = np.zeros(len(steps), np.uint64)
        named = [step.named() for step in steps]
        self._rows = DeviceTensors(
            self._source,
            self.indices,
            [step.p for step in steps],
            [
                [arrays[key] if key in self._streams else None for key in ADAM.state]
                for arrays in named
            ],
            list(low_precision),
            type(steps[0].g),
            steps[0].g.dtype,
            self.device,
            [bool(step.p.flags.c_contiguous) for step in steps],
            self.addresses,
            *written,
        )
        self.steps, self._dense = [], []
        # what a graph needs is there before one is captured
        self._on_gpu["tensors"].put(self.table)
        self.reserve()

    def can_be_kept(self, low_precision: Sequence[Any]) -> bool:
        """Tell whether all arrays are dense, and can be walked beside their half types.

        These, the half-precision parameters that are rounded from their masters, None for others,
        are noted for the next step.
        """
        if self.strided:
            return False
        for row, step, half in zip(self.table, self.steps, low_precision, strict=True):
            if half is None:
                continue
            layout = "c_contiguous" if step.p.flags.c_contiguous else "f_contiguous"
            if (
                not getattr(half.flags, layout)
                or half.shape != step.p.shape
                or device_of(half) != self.device
            ):
                return False
            row["half"], row["half_type"] = address(half), stored(half.dtype)
            self._masters = c_flag(self.types[1] == "float")
        return True

    def untangle(self, written: Written) -> bool:
        """Read gradients that reach into what is written from copies; tell whether none does."""
        copied = False
        for i, step in enumerate(self.steps):
            if written.has_part(step.g):
                with on_device(self.device):
                    g = self._dense[i].g.copy()
                self._dense[i] = self._dense[i]._replace(g=g)
                self.addresses[i] = address(g)
                copied = True
        return not copied

    def refresh(self, coefficients: list[Coefficients]) -> bool:
        """Take over the gradients and coefficients of another step, as `GpuSteps.refresh`."""
        assert self._rows is not None
        own = [coefficients[i] for i in self.sets]
        # whoever describes the steps says what is wrong, or that nothing is
        if not (can_take(own, self._flags, self._least) and self._rows.refresh()):
            return False
        dtype = self._rows.dtype
        if dtype is not self._g_dtype:
            # what has been divided is in the computing dtype, what is to be divided in a half type
            if _taken(dtype, self.computing) != dtype:
                return False
            self.types = (*self.types[:2], c_name(dtype), *self.types[3:])
            self._g_dtype = dtype
        set_scalars(self._scalar_rows, own)
        return True

    def sums_of_squares(self, scale: float, totals: Any) -> None:
        """Launch the sums of squares of the gradients, divided by a scale, 0 for none."""
        if self._squares is None:
            self._squares = GpuSquares(self.sizes, self.indices, self.device)
        types = self.types[0], self.types[2]
        version = None if self._rows is None else self._rows.version
        gradients = self._on_gpu["gradients"].put(self.addresses, self.recording, version)
        self._squares.run(types, gradients, None, scale, totals, self.recording)

    def can_prepare(self, scaled: bool, write: bool) -> bool:
        """Tell whether the gradients may be divided, multiplied and written on the way.

        What is divided does not fit into a half type, and what is shared would be changed twice.
        """
        if not write:
            return True
        half = self.types[2] != self.types[0]
        return not (half and scaled) and len(np.unique(self.addresses)) == len(self.addresses)

    def prepare(self, scale: float, rate: Any, write: bool) -> None:
        """Say what the next steps do to the gradients; `rate` is a number or on the GPU."""
        self.scalars["scale"] = scale
        self._rate = rate
        if isinstance(rate, float):
            # 1 need not be multiplied with, and a half-precision gradient not be rounded for it
            self._rate = None if rate == 1 else self._on_gpu["rate"].put(np.array([rate]))
        plain = scale == 0 and self._rate is None
        self._prepare = AS_IT_IS if plain else WRITTEN if write else PREPARED

    def _describe(self) -> None:
        """Fill in where the arrays lie."""
        for row, step in zip(self.table, self._dense, strict=True):
            arrays = step.named()
            for key in ("p", *self._streams):
                row[key] = address(arrays[key])
        self.addresses[:] = [address(step.g) for step in self._dense]


def _dense(step: Step, g_dtype: np.dtype[Any]) -> Step:
    """Return a step whose arrays share one dense layout, with its own arrays where they do."""
    module: Any = get_array_module(step.p)
    arrays: dict[str, Any] = step.named()
    always = [stream.name for stream in ADAM.streams if stream.when is None]
    ours = [arrays[key].flags for key in ("p", *always)]
    fortran = not ours[0].c_contiguous and all(flags.f_contiguous for flags in ours)
    order, flag = ("F", "f_contiguous") if fortran else ("C", "c_contiguous")
    if all(getattr(a.flags, flag) for a in arrays.values()) and step.g.dtype == g_dtype:
        return step
    with on_device(device_of(step.p)):
        if step.g.dtype != g_dtype:
            arrays["g"] = arrays["g"].astype(g_dtype)
        for key, array in arrays.items():
            if not getattr(array.flags, flag):
                arrays[key] = module.array(array, order=order, copy=True)
    state = tuple(map(arrays.get, ADAM.state))
    return step._replace(p=arrays["p"], g=arrays["g"], state=state)


def _same(one: Step, other: Step) -> bool:
    """Tell whether two steps are of the same arrays."""
    ours, theirs = one.named(), other.named()
    return all(array is theirs[key] for key, array in ours.items())
