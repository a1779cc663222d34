"""What fastadam reads of CuPy's own arrays, which here lie in the host's memory.

CuPy can be imported without a driver, and makes arrays over memory that is not its own. Nothing
else is possible: to allocate, to copy, to ask for the current device or stream, to compile for it
and to launch is to call the driver. So this is about what arrays say of themselves; the rest is
for the stand-in, and for ``-m gpu``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from steps import changed, step_of

from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels._source import ArraySource
from fastadam.kernels.arrays import check_arrays, is_writeable
from fastadam.kernels.backend import address, device_of, get_array_module, is_array, is_gpu_array
from fastadam.kernels.gpu._tensors import DeviceTensors
from fastadam.kernels.gpu.engine import KERNELS, POINTER, _cast, scalars_dtype
from fastadam.kernels.gpu.table import GpuTable, gpu_key
from fastadam.kernels.memory import extent

cupy = pytest.importorskip("cupy", reason="needs CuPy")

HYPERPARAM = {
    **{
        "alpha": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-8,
        "eta": 1.0,
        "weight_decay_rate": 0.0,
    },
    **{"amsgrad": True, "adabound": False, "final_lr": 0.1, "gamma": 0.1},
}


def over(host: np.ndarray, device: int = 0) -> Any:
    """Return an array of CuPy's over the memory of one of NumPy's."""
    memory = cupy.cuda.memory.UnownedMemory(host.ctypes.data, max(host.nbytes, 1), host, device)
    pointer = cupy.cuda.memory.MemoryPointer(memory, 0)
    return cupy.ndarray(host.shape, host.dtype, pointer, host.strides)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["C", "F", "every second"])
def test_what_arrays_say(dtype: str, layout: str) -> None:
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    host = np.zeros((4, 6), kind, order="F" if layout == "F" else "C")
    host = host[:, ::2] if layout == "every second" else host
    array = over(host, 1)
    assert is_array(array)
    assert is_gpu_array(array)
    assert get_array_module(array, host) is cupy
    assert device_of(array) == 1
    assert address(array) == host.ctypes.data
    assert extent(array) == extent(host)
    assert is_writeable(array)
    assert (array.dtype, array.shape, array.strides) == (host.dtype, host.shape, host.strides)
    assert array.flags.c_contiguous == host.flags.c_contiguous
    assert array.flags.f_contiguous == host.flags.f_contiguous
    assert array._c_contiguous == host.flags.c_contiguous
    assert array._f_contiguous == host.flags.f_contiguous


def test_arrays_are_checked() -> None:
    p, g, m, v = (over(np.zeros(3, np.float32)) for _ in range(4))
    check_arrays("w", p, g, (m, v, None))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        check_arrays("w", p, over(np.zeros(4, np.float32)), (m, v, None))
    with pytest.raises(TypeError, match="int32"):
        check_arrays("w", over(np.zeros(3, np.int32)), g, (m, v, None))


def test_a_table_describes_them() -> None:
    hosts = [np.zeros(n, np.float32) for n in (5, 5, 5, 5, 5)]
    c = step_coefficients(HYPERPARAM, 1, None)
    step = step_of("w", *map(over, hosts), c)
    assert gpu_key(step)[0] == 0
    table = GpuTable([step], [0], {id(c): 0}, ArraySource([step], []))
    row = table.table[0]
    addresses = [host.ctypes.data for host in hosts]
    assert [row["p"], table.addresses[0], row["m"], row["v"], row["vhat"]] == addresses
    assert row["n"] == 5
    assert table.types == ("float", "float", "float", "true", "false")


def test_rows_are_read_anew() -> None:
    p, m, v, g, other = (over(np.zeros(7, np.float32)) for _ in range(5))
    addresses = np.array([address(g)], np.uint64)
    low, high = np.array([extent(p)], np.uintp).T.copy()
    kind = type(g), g.dtype, 0
    step = step_of("p", p, g, m, v, None, None)
    steps = [step]
    own = [p], [[m, v, None]], [None]
    layout = *kind, [True], addresses, low, high
    rows = DeviceTensors(ArraySource(steps, []), [0], *own, *layout)
    assert rows.refresh()
    steps[0] = step._replace(g=other)
    assert rows.refresh()
    assert addresses.tolist() == [address(other)]
    # whoever reads them says which dtypes they may have, all of one
    wide = over(np.zeros(7))
    steps[0] = step._replace(g=wide)
    assert rows.refresh()
    assert (rows.dtype, addresses.tolist()) == (np.float64, [address(wide)])
    steps[0] = step._replace(g=other)
    assert rows.refresh()
    assert rows.dtype == np.float32
    # not: another array, shape, device, memory of the parameter's own, library
    for name in ("p", "m", "v"):
        steps[0] = changed(step, **{name: over(np.zeros(7, np.float32))})
        assert not rows.refresh()
    bad = [
        *(over(np.zeros(6, np.float32)), over(np.zeros((7, 1), np.float32))),
        *(over(np.zeros(7, np.float32), 1), p, np.zeros(7, np.float32), None),
        over(np.zeros(14, np.float32)[::2]),
    ]
    for grad in bad:
        steps[0] = step._replace(g=grad)
        assert not rows.refresh()
    assert addresses.tolist() == [address(other)]


def test_arguments_are_what_cupy_takes() -> None:
    """Numbers are NumPy's scalars of one width, structs are void: CuPy packs both as they are."""
    struct = _cast("scalars", np.zeros(1, scalars_dtype("float")), ("float",))
    assert (struct.dtype.kind, struct.nbytes) == ("V", scalars_dtype("float").itemsize)
    for declared in KERNELS.values():
        for kind in declared:
            if isinstance(kind, np.dtype):
                assert type(_cast(kind, 3, ())) is kind.type
    array = over(np.zeros(3))
    assert _cast(POINTER, array, ()) is array
    assert _cast(POINTER, None, ()) == np.uintp(0)


def test_compiler_options_that_cupy_adds() -> None:
    """They are known: see ``test_nvrtc.py``, where both are given."""
    import inspect

    source = inspect.getsource(cupy.cuda.compiler)
    assert "'-ftz=true'" in source
    assert "'--device-as-default-execution-space'" in source


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_kept_table_reads_gradients_of_one_dtype_the_next_time_of_another(dtype: Any) -> None:
    c = step_coefficients(HYPERPARAM, 1, None)
    steps = [
        step_of(name, *(over(np.zeros(5, np.float32)) for _ in range(5)), c) for name in ("a", "b")
    ]
    table = GpuTable(steps, [0, 1], {id(c): 0}, ArraySource(steps, []))
    table._rows = DeviceTensors(
        ArraySource(steps, []),
        [0, 1],
        *([step.p for step in steps], [list(step.state) for step in steps], [None, None]),
        *(type(steps[0].g), steps[0].g.dtype, 0, [True, True], table.addresses),
        *(np.array([0], np.uintp), np.array([0], np.uintp)),
    )
    assert table.refresh([c])
    steps[0] = steps[0]._replace(g=over(np.zeros(5, dtype)))
    assert table.refresh([c]) is (dtype == np.float32)
    steps[1] = steps[1]._replace(g=over(np.zeros(5, dtype)))
    assert table.refresh([c]) is (dtype != np.float64)
    if dtype == np.float16:
        assert table.types == ("float", "float", "float16", "true", "false")
