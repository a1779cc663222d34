"""Devices under every name that programs call them by, where there is no GPU."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Chain, Link, Parameter
from fastadam.model.device import CpuDevice, check_device


class ChainersCpu:
    """What Chainer's devices look like from outside."""

    name = "@numpy"


@pytest.fixture(params=["link", "chain", "parameter", "uninitialised parameter"])
def movable(request: pytest.FixtureRequest) -> Any:
    made = {
        "link": lambda: Link(W=(2, 3)),
        "chain": lambda: Chain(l1=Link(W=(2, 3))),
        "parameter": lambda: Parameter(np.ones(3, np.float32)),
        "uninitialised parameter": lambda: Parameter(),
    }
    return made[request.param]()


@pytest.mark.parametrize("device", ["@numpy", -1, "-1", CpuDevice(), ChainersCpu()])
def test_the_cpu_is_where_everything_is(movable: Any, device: Any) -> None:
    moved = movable.to_device(device)
    assert moved is (movable if isinstance(movable, Link) else None)
    assert movable.device == CpuDevice()
    assert movable.xp is np


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CuPy be missing, wherever the tests run."""
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.mark.usefixtures("no_cupy")
@pytest.mark.parametrize("device", [0, 3, "0", "@cupy:0", "cuda:1", "cuda"])
def test_without_cupy_the_extra_to_install_is_named(movable: Any, device: Any) -> None:
    with pytest.raises(RuntimeError, match=r"needs CuPy.*'cupy-cuda12x\[ctk\]>=14'.*cupy-cuda13x"):
        movable.to_device(device)
    assert movable.device == CpuDevice()


@pytest.mark.parametrize("device", ["gpu0", "", None, True, 1.5])
def test_nonsense_is_refused(movable: Any, device: Any) -> None:
    with pytest.raises(ValueError, match="no device"):
        movable.to_device(device)


@pytest.mark.usefixtures("no_cupy")
def test_parameters_old_methods() -> None:
    array = np.ones(3)
    param = Parameter(array)
    assert param.to_cpu() is None
    assert param.array is array
    with pytest.raises(RuntimeError, match="needs CuPy"):
        param.to_gpu(2)


@pytest.mark.usefixtures("no_cupy")
def test_links_old_methods_are_deprecated() -> None:
    link = Link(W=(2, 3))
    with pytest.warns(DeprecationWarning, match="to_device"):
        assert link.to_cpu() is link
    with (
        pytest.warns(DeprecationWarning, match="to_device"),
        pytest.raises(RuntimeError, match="needs CuPy"),
    ):
        link.to_gpu()


def test_cpu_device() -> None:
    device = CpuDevice()
    assert device == check_device("@numpy")
    assert device != "@numpy"
    assert len({device, CpuDevice()}) == 1
    assert repr(device) == "<CpuDevice (numpy)>"
    array = np.ones(2)
    assert device.send(array) is array
    assert device.send(None) is None
    assert device.send(1.5) == np.float64(1.5)


def test_what_chainers_devices_have() -> None:
    device, array = CpuDevice(), np.ones(2)
    assert device.xp is np
    assert device.supported_array_types == (np.ndarray,)
    assert device.is_array_supported(array)
    for other in (1.0, None, [1.0], np.float64(1)):
        assert not device.is_array_supported(other)
        assert CpuDevice.from_array(other) is None
    assert CpuDevice.from_array(array) == device
    assert str(device) == "@numpy"
    with device.create_context():
        assert device.use() is None
    one, same, none = device.send([array, array, None])
    assert one is same is array
    assert none is None
    assert type(device.send((array,))) is tuple
    assert device.send([1.5, 2.5]).tolist() == [1.5, 2.5]
    assert Link(W=2).device.is_array_supported(array)


def test_repr_of_an_optimizer_says_cpu() -> None:
    assert repr(fastadam.Adam().setup(np.ones(2))).endswith("2 elements, float64, CPU>")
    assert repr(fastadam.Adam().setup(Link(W=None))).endswith("0 elements, uninitialised, CPU>")
