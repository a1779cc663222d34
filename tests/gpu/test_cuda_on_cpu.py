"""CUDA on a CPU and the stand-in for CuPy, which are what the other tests rest on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import emulator
from cuda_on_cpu.emulator import ORDERS, EmulatorError, Kernels
from cuda_on_cpu.memory import Memory, check_guards, counting, repair_guards, state
from place import cupy_is_the_stand_in

pytestmark = pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")

SOURCE = r"""
struct Three { float a; double b; short c; };
template <typename T> struct alignas(16) Four { T x[4]; };

__global__ void sum(const double *x, double *out, unsigned n)
{
    __shared__ double lanes[64];
    lanes[threadIdx.x] = threadIdx.x < n ? x[blockIdx.x * n + threadIdx.x] : 0;
    for (unsigned half = 32; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            lanes[threadIdx.x] += lanes[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = lanes[0];
}
__global__ void no_barrier(double *out)
{
    __shared__ double lanes[64];
    lanes[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = lanes[63 - threadIdx.x];
}
__global__ void divergent(double *out)
{
    if (threadIdx.x < 32)
        __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void last_writes(unsigned *out) { *out = blockIdx.x * blockDim.x + threadIdx.x; }
__global__ void where(unsigned *out)
{
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
__global__ void at(float *x, long long i) { x[i] = 1; }
__global__ void wide(float *x, unsigned i)
{
    *reinterpret_cast<Four<float> *>(x + i) = Four<float>{{1, 2, 3, 4}};
}
__global__ void arithmetic(const float *x, float *y)
{
    y[0] = x[0] * x[1] + x[2];
    y[1] = x[3] * x[4];
    y[2] = sqrtf(x[0]) / x[1];
}
__global__ void doubles(const double *x, double *y) { *y = x[0] * x[1] + x[2]; }
__global__ void by_value(const __grid_constant__ Three three, double *out)
{
    out[0] = three.a; out[1] = three.b; out[2] = three.c;
}
__global__ void fold(const double *x, double *out, unsigned n)
{
    if (threadIdx.x / 32 >= n)
        return;
    double sum = x[threadIdx.x];
    for (unsigned half = 16; half; half /= 2)
        sum = sum + __shfl_down_sync(0xffffffffu, sum, half);
    if (threadIdx.x % 32 == 0)
        out[threadIdx.x / 32] = sum;
}
__global__ void taken(const unsigned *x, unsigned *out, unsigned mask, unsigned delta, int width)
{
    if (mask >> threadIdx.x & 1)
        out[threadIdx.x] = __shfl_down_sync(mask, x[threadIdx.x], delta, width);
}
__global__ void alone(float *x, unsigned mask, bool waits)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_down_sync(mask, x[threadIdx.x], 1);
    else if (waits)
        __syncthreads();
}
__global__ void kinds(float *p, unsigned u, int i, size_t n, float f, double d, short s, bool b) {}
"""
NAMES = [
    *("sum", "no_barrier", "divergent", "last_writes", "where", "at", "wide", "arithmetic"),
    *("doubles", "by_value", "fold", "taken", "alone", "kinds"),
]


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels(SOURCE, NAMES)


def launch(kernels: Kernels, name: str, grid: Any, block: Any, *args: Any, **kwargs: Any) -> None:
    """Launch with arrays of NumPy's, whose addresses are given, or numbers."""
    values = [
        np.array([a.ctypes.data], np.uint64)
        if isinstance(a, np.ndarray) and a.ndim
        else np.array([a])
        for a in args
    ]
    kernels.launch(name, grid, block, [value.ctypes.data for value in values], **kwargs)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("warps", [1, 3, 4])
def test_warps_shuffle(kernels: Kernels, order: str, warps: int) -> None:
    """Each by itself; of those that end at once, nobody waits for."""
    x, out = np.random.default_rng(0).normal(size=(4, 32)), np.zeros(4)
    launch(kernels, "fold", [1], [128], x, out, np.uint32(warps), order=order, seed=3)
    lanes = x.copy()
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    assert out.tolist() == [*lanes[:warps, 0].tolist(), *[0.0] * (4 - warps)]


@pytest.mark.parametrize("order", ORDERS)
def test_what_a_shuffle_gives(kernels: Kernels, order: str) -> None:
    """That of a thread so far above, one's own where there is none; of one not asked, nothing."""
    x = np.arange(100, 132, dtype=np.uint32)
    for mask, delta, width in ((0xFFFFFFFF, 3, 32), (0xFFFFFFFF, 5, 8), (0x00FF00FF, 2, 32)):
        out = np.zeros(32, np.uint32)
        numbers = np.uint32(mask), np.uint32(delta), np.int32(width)
        launch(kernels, "taken", [1], [32], x, out, *numbers, order=order)
        for i, got in enumerate(out.tolist()):
            source = i + delta if i % width + delta < width else i
            theirs = x[source] if mask >> source & 1 else 0xFFFFFFFF
            assert got == (theirs if mask >> i & 1 else 0), (mask, delta, width, i)


@pytest.mark.parametrize(
    ("mask", "waits", "error"),
    [
        (0xFFFFFFFF, False, "some threads of a warp wait at a shuffle"),
        (0xFFFFFFFF, True, "some threads of a warp wait at a shuffle"),
        (0x0000FFFE, False, "a mask that it is not in"),
        (0x0000FFFF, False, None),
    ],
)
def test_shuffles_that_some_threads_do_not_reach(
    kernels: Kernels, mask: int, waits: bool, error: str | None
) -> None:
    x, numbers = np.zeros(32, np.float32), (np.uint32(mask), np.bool_(waits))
    for order in ORDERS:
        if error is None:
            launch(kernels, "alone", [1], [32], x, *numbers, order=order)
        else:
            with pytest.raises(EmulatorError, match=error):
                launch(kernels, "alone", [1], [32], x, *numbers, order=order)
    if error is None:
        with pytest.raises(EmulatorError, match="some threads of a warp"):
            # a block of fewer threads than the mask has
            launch(kernels, "alone", [1], [8], x, *numbers)


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_and_shared_memory(kernels: Kernels, order: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 64))
    out = np.zeros(5)
    launch(kernels, "sum", [5], [64], x, out, np.uint32(64), order=order, seed=3)
    lanes = x.copy()
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    assert out.tolist() == lanes[:, 0].tolist()


def test_a_missing_barrier_is_seen_in_some_order(kernels: Kernels) -> None:
    expected = np.arange(64.0)[::-1]
    wrong = []
    for order in ORDERS:
        out = np.zeros(64)
        launch(kernels, "no_barrier", [1], [64], out, order=order)
        wrong.append(not np.array_equal(out, expected))
    assert any(wrong)


def test_a_barrier_that_some_threads_do_not_reach(kernels: Kernels) -> None:
    with pytest.raises(EmulatorError, match=r"divergent: some threads.*__syncthreads"):
        launch(kernels, "divergent", [1], [64], np.zeros(64))
    # and goes on working
    launch(kernels, "divergent", [1], [32], np.zeros(64))


def test_an_address_that_is_nobodys(kernels: Kernels) -> None:
    with pytest.raises(EmulatorError, match="at: an illegal memory access"):
        kernels.launch("at", [1], [1], [np.array([a]).ctypes.data for a in (np.uint64(16), 0)])
    out = np.zeros(1, np.float32)
    launch(kernels, "at", [1], [1], out, np.int64(0))
    assert out[0] == 1


def test_orders(kernels: Kernels) -> None:
    last = {}
    for order in ORDERS:
        out = np.zeros(1, np.uint32)
        launch(kernels, "last_writes", [10], [32], out, order=order, seed=1)
        last[order] = int(out[0])
    assert last["forward"] == 319
    assert last["reverse"] == 0
    assert last["shuffled"] not in (0, 319)
    out = np.zeros(1, np.uint32)
    launch(kernels, "last_writes", [10], [32], out, order="shuffled", seed=2)
    assert int(out[0]) != last["shuffled"]


def test_three_axes(kernels: Kernels) -> None:
    out = np.zeros((2 * 3 * 4, 5 * 2 * 3), np.uint32)
    launch(kernels, "where", [2, 3, 4], [5, 2, 3], out)
    assert out.tolist() == [[1000 * b + t for t in range(30)] for b in range(24)]


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [
        *(([0], [32], 0), ([1], [0], 0), ([1], [1025], 0), ([1], [32, 33], 0)),
        *(([1], [1, 1, 65], 0), ([1, 65536], [1], 0), ([1, 1, 65536], [1], 0)),
        ([1], [32], 48 * 1024 + 1),
    ],
)
def test_launches_beyond_the_limits(kernels: Kernels, grid: Any, block: Any, shared: int) -> None:
    with pytest.raises(EmulatorError, match="limits of CUDA"):
        launch(kernels, "last_writes", grid, block, np.zeros(1, np.uint32), shared=shared)


def test_misaligned_accesses(kernels: Kernels) -> None:
    memory = np.zeros(32, np.float32)
    first = -memory.ctypes.data // 4 % 4
    launch(kernels, "wide", [1], [1], memory, np.uint32(first))
    assert memory[first : first + 4].tolist() == [1, 2, 3, 4]
    with pytest.raises(EmulatorError, match=r"wide: misaligned address \d+ in line \d+"):
        launch(kernels, "wide", [1], [1], memory, np.uint32(first + 1))


def test_every_operation_rounds_once(kernels: Kernels) -> None:
    x = np.array([1 + 2**-12, 1 + 2**-12, -(1 + 2**-11), 1e-30, 1e-10], np.float32)
    y = np.zeros(3, np.float32)
    launch(kernels, "arithmetic", [1], [1], x, y)
    # contracted, the square's last bit would stay
    assert y[0] == x[0] * x[1] + x[2] == 0
    assert y[1] == x[3] * x[4] != 0
    assert y[2] == np.sqrt(x[0]) / x[1]


def test_subnormal_numbers_are_flushed_on_request(kernels: Kernels) -> None:
    tiny = np.float32(1e-40)
    x, y = np.array([tiny, 1, 0, 1e-30, 1e-10], np.float32), np.zeros(3, np.float32)
    for flush in (True, False):
        launch(kernels, "arithmetic", [1], [1], x, y, flush=flush)
        assert (y[0] == 0) == flush
        assert (y[1] == 0) == flush
    # and the mode is as before
    assert tiny * np.float32(1) == tiny


def test_structs_by_value(kernels: Kernels) -> None:
    three = np.array((1.5, 2.5, 3), np.dtype([("a", "f4"), ("b", "f8"), ("c", "i2")], align=True))
    out = np.zeros(3)
    launch(kernels, "by_value", [1], [1], three, out)
    assert out.tolist() == [1.5, 2.5, 3]
    assert kernels.signature("by_value") == [("struct", 24), ("pointer", 8)]


def test_signatures(kernels: Kernels) -> None:
    kinds = ["pointer", "uint", "int", "uint", "float", "float", "int", "bool"]
    widths = [8, 4, 4, 8, 4, 8, 2, 1]
    assert kernels.signature("kinds") == list(zip(kinds, widths, strict=True))


def test_errors_of_the_compiler_tell_the_line() -> None:
    with pytest.raises(EmulatorError, match=r"kernel\.cu:3:.*nonsense"):
        Kernels("\n\n__global__ void bad(float *x) { nonsense; }\n", ["bad"])


# -- the stand-in ------------------------------------------------------------------------------


@pytest.fixture
def module(stand_in: Any) -> Any:
    return stand_in.RawModule(code=SOURCE, options=(), name_expressions=tuple(NAMES))


@pytest.mark.parametrize("i", [-1, 5, 128, -128])
def test_writes_beside_an_allocation_are_found(stand_in: Any, module: Any, i: int) -> None:
    x = stand_in.zeros(5, np.float32)
    with pytest.raises(MemoryError, match=r"wrote (before|after) an allocation of 20 bytes"):
        module.get_function("at")((1,), (1,), (x, np.int64(i)))
    repair_guards()
    check_guards()


def test_memory_is_not_zero_and_well_aligned(stand_in: Any) -> None:
    assert np.isnan(stand_in.empty(3, np.float32).get()).all()
    assert all(Memory(n).ptr % 512 == 0 for n in (0, 1, 3, 1000))


ONE = np.float32(1)
GOOD = (None, np.uint32(1), np.int32(1), np.uint64(1), ONE, np.float64(1), np.int16(1), True)


def test_arguments_of_the_right_width(module: Any) -> None:
    module.get_function("kinds")((1,), (1,), GOOD)


@pytest.mark.parametrize(
    ("i", "value"),
    [
        *((0, np.uint32(0)), (0, 5), (0, np.zeros(3, np.float32)), (0, ONE)),
        *((1, 1), (1, 1.0), (1, np.int32(1)), (1, np.uint64(1)), (1, None), (1, True)),
        *((2, np.uint32(1)), (3, np.uint32(1)), (3, np.int64(1))),
        *((4, 1.0), (4, np.float64(1)), (4, np.int32(1)), (5, ONE), (6, np.int32(1)), (7, 1)),
        (1, np.zeros(2, np.uint32)),
    ],
)
def test_arguments_that_cupy_would_let_pass(module: Any, i: int, value: Any) -> None:
    arguments = [*GOOD[:i], value, *GOOD[i + 1 :]]
    with counting() as counts, pytest.raises(TypeError, match=f"kinds: argument {i} is"):
        module.get_function("kinds")((1,), (1,), tuple(arguments))
    assert not counts.launches


def test_the_number_of_arguments(module: Any) -> None:
    for arguments in (GOOD[:-1], (*GOOD, None)):
        with pytest.raises(TypeError, match=f"kinds: {len(arguments)} arguments, .* takes 8"):
            module.get_function("kinds")((1,), (1,), arguments)
    with pytest.raises(TypeError, match="tuples"):
        module.get_function("kinds")([1], (1,), GOOD)


def test_arrays_of_another_device(stand_in: Any, module: Any) -> None:
    with stand_in.cuda.Device(1):
        there = stand_in.zeros(5, np.float32)
    with pytest.raises(TypeError, match="not on the current device"):
        module.get_function("at")((1,), (1,), (there, np.int64(0)))
    with pytest.raises(ValueError, match="device 1 is used with device 0 current"):
        there + there
    with stand_in.cuda.Device(1):
        assert (there + there).data.device_id == 1
    with pytest.raises(RuntimeError, match="invalid device"):
        stand_in.cuda.Device(state.devices)


def test_numpy_and_the_stand_in_do_not_mix(stand_in: Any) -> None:
    x = stand_in.ones(3, np.float32)
    with pytest.raises(TypeError, match=r"Implicit conversion.*\.get\(\)"):
        np.asarray(x)
    with pytest.raises(TypeError, match="Unsupported type"):
        x + np.ones(3, np.float32)
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        x[:] = np.ones(3, np.float32)
    with pytest.raises(TypeError, match=r"src must be a cupy\.ndarray"):
        stand_in.copyto(x, np.ones(3, np.float32))
    with pytest.raises(TypeError):
        x.set(np.ones(3))
    # numbers may
    x += 1
    assert (x * np.float32(2)).get().tolist() == [4, 4, 4]


def test_reductions_and_elements_stay_on_the_gpu(stand_in: Any) -> None:
    x = stand_in.arange(6).reshape(2, 3)
    with counting() as counts:
        total, element, row = x.sum(), x[1, 2], x[1]
    assert counts.synchronisations == 0
    assert {type(each) for each in (total, element, row)} == {stand_in.ndarray}
    element[...] = 50
    assert x.get().tolist() == [[0, 1, 2], [3, 4, 50]]
    with counting() as counts:
        assert (int(total), float(row.sum()), bool(x.all())) == (15, 57.0, False)
    assert counts.synchronisations == 3


def test_streams_record(stand_in: Any, module: Any) -> None:
    x = stand_in.zeros(3, np.float32)
    stream = stand_in.cuda.Stream(non_blocking=True)
    kernel = module.get_function("at")
    with stream:
        stream.begin_capture()
        kernel((1,), (1,), (x, np.int64(1)))
        assert x.data.mem.host.view(np.float32).tolist() == [0, 0, 0]
        with pytest.raises(RuntimeError, match="CaptureUnsupported"):
            x.get()
        with pytest.raises(RuntimeError, match="CaptureUnsupported"):
            x += 1
        with pytest.raises(RuntimeError, match="CaptureUnsupported"):
            stream.synchronize()
        graph = stream.end_capture()
        graph.launch()
    assert x.get().tolist() == [0, 1, 0]
    with pytest.raises(RuntimeError, match="CaptureUnsupported"):
        stand_in.cuda.Stream.null.begin_capture()


# -- streams that run late ---------------------------------------------------------------------


@pytest.fixture
def late(_kernels: None) -> Iterator[Any]:
    """Give the stand-in whose streams run as late as can be."""
    with cupy_is_the_stand_in(0) as cupy:
        yield cupy


def there(array: Any) -> list[float]:
    """What has arrived in an array's memory by now."""
    return array._host.tolist()


def test_nothing_runs_before_it_is_waited_for(late: Any) -> None:
    x = late.zeros(2)
    stream = late.cuda.Stream(non_blocking=True)
    with stream:
        x += 1
    assert np.isnan(there(x)).all()
    # the stream has not waited for the zeros: NaN + 1
    stream.synchronize()
    assert np.isnan(there(x)).all()
    assert x.get().tolist() == [0, 0]
    synchronize = late.cuda.runtime.deviceSynchronize
    waits = [stream.synchronize, synchronize, lambda: stream.record().synchronize()]
    for step, wait in enumerate(waits):
        with stream:
            x += 1
        earlier = late.cuda.Stream.null.record()
        earlier.synchronize()
        assert there(x) == [step, step]
        wait()
        assert there(x) == [step + 1, step + 1]


def test_events_and_the_default_stream_order_streams(late: Any) -> None:
    x = late.zeros(1)
    first, second = (late.cuda.Stream(non_blocking=True) for _ in range(2))
    first.wait_event(late.cuda.Stream.null.record())
    with first:
        x += 5
    event = first.record()
    second.wait_event(event)
    with second:
        x *= 2
    assert not event.done
    second.synchronize()
    assert event.done
    assert there(x) == [10]
    # blocking streams and the default one wait for each other
    blocking = late.cuda.Stream()
    x += 1
    with blocking:
        x *= 2
    x += 3
    late.cuda.Stream.null.synchronize()
    assert there(x) == [25]


@pytest.mark.usefixtures("_kernels")
def test_seeds_are_orders() -> None:
    found = set()
    for seed in range(12):
        with cupy_is_the_stand_in(seed) as cupy:
            x = cupy.ones(1)
            cupy.cuda.runtime.deviceSynchronize()
            with cupy.cuda.Stream(non_blocking=True):
                x *= 2
            with cupy.cuda.Stream(non_blocking=True):
                x += 3
            cupy.cuda.runtime.deviceSynchronize()
            found |= set(there(x))
    assert found == {5, 8}


def test_memory_is_had_again_on_its_stream_at_once(late: Any) -> None:
    stream = late.cuda.Stream(non_blocking=True)
    x = late.ones(3)
    address = x.data.ptr
    del x
    with stream:
        assert late.empty(3).data.ptr != address
    with late.cuda.Device(1):
        assert late.empty(3).data.ptr != address
    assert late.empty(30).data.ptr == address
    # its number goes to the next stream, and with it its memory
    with stream:
        address = late.empty(3).data.ptr
    number = stream.ptr
    del stream
    again = late.cuda.Stream(non_blocking=True)
    assert again.ptr == number
    with again:
        assert late.empty(3).data.ptr == address


def test_host_memory_is_read_late(late: Any) -> None:
    x, y, z = (late.empty(2) for _ in range(3))
    kept, changed = np.ones(2), np.ones(2)
    x.set(kept)
    y.set(changed)
    z.set(np.ones(2))
    safe = late.asarray(changed)
    changed[:] = 7
    assert x.get().tolist() == [1, 1]
    assert y.get().tolist() == [7, 7]
    assert z.get().tolist() != [1, 1]
    assert safe.get().tolist() == [1, 1]


def test_current_streams_are_a_devices_own(late: Any) -> None:
    stream = late.cuda.Stream(non_blocking=True)
    with late.cuda.Device(1):
        other = late.cuda.Stream(non_blocking=True)
        with pytest.raises(RuntimeError, match="does not match"):
            stream.use()
        with other:
            assert late.cuda.get_current_stream() is other
            assert late.cuda.get_current_stream(0) is late.cuda.Stream.null
    with stream, late.cuda.Device(1):
        assert late.cuda.get_current_stream() is late.cuda.Stream.null


def test_graphs_keep_nothing_and_run_late(late: Any) -> None:
    x = late.zeros(3)
    late.cuda.runtime.deviceSynchronize()
    stream = late.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        x.fill(4)
        graph = stream.end_capture()
        graph.launch()
    assert there(x) == [0, 0, 0]
    stream.synchronize()
    assert there(x) == [4, 4, 4]
    del x
    y = late.zeros(3)
    late.cuda.runtime.deviceSynchronize()
    graph.launch(stream)
    stream.synchronize()
    assert there(y) == [4, 4, 4]


def test_captures_in_global_mode(late: Any) -> None:
    x = late.zeros(3)
    other, stream = late.cuda.Stream(non_blocking=True), late.cuda.Stream(non_blocking=True)
    event = other.record()
    runtime = late.cuda.runtime
    unsafe = [
        lambda: late.empty(3),
        x.get,
        other.synchronize,
        event.synchronize,
        lambda: event.done,
        runtime.deviceSynchronize,
        lambda: late.RawModule(code=SOURCE).get_function("at"),
    ]
    for call in unsafe:
        stream.begin_capture(runtime.streamCaptureModeGlobal)
        with pytest.raises(RuntimeError, match="CaptureUnsupported"):
            call()
        with pytest.raises(RuntimeError, match="Invalidated"):
            stream.end_capture()
    stream.begin_capture()
    late.empty(3)
    other.synchronize()
    with pytest.raises(RuntimeError, match="Isolation"):
        stream.wait_event(event)
    stream.end_capture()
    blocking = late.cuda.Stream()
    blocking.begin_capture()
    with pytest.raises(RuntimeError, match="Implicit"):
        x.fill(1)
    blocking.end_capture()
