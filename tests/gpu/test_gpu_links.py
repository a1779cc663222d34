"""Links and parameters that move between the CPU and GPUs, with everything that is theirs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from cases import assert_same_bits

import fastadam
from fastadam import Chain, Link, Parameter
from fastadam.model.device import CpuDevice, GpuDevice, check_device


def trained(device: str = "@numpy", steps: int = 2, **link: Any) -> tuple[Any, Any]:
    """Return a model, some steps old, and its optimizer."""
    model = Chain(l1=Link(W=(4, 3), b=(3,)), l2=Link(W=(3, 2)))
    for i, param in enumerate(model.params()):
        param.array[...] = np.random.default_rng(i).normal(size=param.shape)
    model.l1.add_persistent("mean", np.arange(3.0))
    model.l1.add_persistent("n", 7)
    model.to_device(device)
    opt = fastadam.AMSGrad(alpha=0.1).setup(model)
    step(opt, steps)
    return model, opt


def step(opt: Any, n: int = 1) -> None:
    for _ in range(n):
        for path, param in opt.parameters.items():
            random = np.random.default_rng([opt.t, len(path)])
            param.grad = param.device.send(random.normal(size=param.shape).astype(np.float32))
        opt.update()


def on_cpu(array: Any) -> np.ndarray:
    return array.get() if not isinstance(array, np.ndarray) else array


def assert_same(one: Any, other: Any) -> None:
    """Compare the bits of two trained optimizers' arrays, wherever they are."""
    for path, param in one.parameters.items():
        twin = other.parameters[path]
        assert_same_bits(on_cpu(twin.array), on_cpu(param.array))
        for key, value in param.update_rule.state.items():
            assert_same_bits(on_cpu(twin.update_rule.state[key]), on_cpu(value))


def test_everything_moves(cupy: Any) -> None:
    model, opt = trained()
    _, twin = trained()
    assert model.to_device("@cupy:0") is model
    assert model.xp is cupy
    assert model.device == GpuDevice(0)
    for param in model.params():
        assert param.device == GpuDevice(0)
        assert param.xp is cupy
        assert type(param.array) is type(param.grad) is cupy.ndarray
        assert all(type(value) is cupy.ndarray for value in param.update_rule.state.values())
    assert type(model.l1.mean) is cupy.ndarray
    assert model.l1.n == 7
    for o in (opt, twin):
        step(o, 2)
    assert_same(opt, twin)
    model.to_device("@numpy")
    for param in model.params():
        assert type(param.array) is type(param.grad) is np.ndarray
        assert all(type(value) is np.ndarray for value in param.update_rule.state.values())
    assert model.l1.mean.tolist() == [0, 1, 2]
    for o in (opt, twin):
        step(o, 2)
    assert_same(opt, twin)


def test_to_another_gpu(cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    model, opt = trained("@cupy:0")
    _, twin = trained()
    model.to_device("@cupy:1")
    assert {param.array.data.device_id for param in model.params()} == {1}
    for o in (opt, twin):
        step(o, 2)
    assert_same(opt, twin)
    assert cupy.cuda.runtime.getDevice() == 0


def test_one_link_of_a_chain_moves(cupy: Any) -> None:
    model, opt = trained()
    _, twin = trained()
    model.l2.to_device(0)
    for o in (opt, twin):
        step(o, 3)
    assert_same(opt, twin)
    assert type(model.l1.W.array) is np.ndarray
    assert type(model.l2.W.array) is cupy.ndarray


def test_states_follow_an_array_that_was_put_elsewhere(cupy: Any) -> None:
    model, opt = trained()
    _, twin = trained()
    for param in model.params():
        param.array = cupy.asarray(param.array)
    for o in (opt, twin):
        step(o, 2)
    assert_same(opt, twin)


def test_masters_move(cupy: Any) -> None:
    opts = [fastadam.Adam(alpha=1e-4).setup(Link(W=((5, 4), np.float16))) for _ in range(2)]
    for opt in opts:
        opt.target.W.array[...] = 1
        opt.use_fp32_update()
        step(opt, 2)
    opts[0].target.to_device("@cupy:0")
    for opt in opts:
        step(opt, 3)
    masters = [opt.target.W.update_rule._fp32_param.array for opt in opts]
    assert type(masters[0]) is cupy.ndarray
    assert_same_bits(masters[0], masters[1])
    assert_same(*opts)


def test_uninitialised_parameters_are_made_there(cupy: Any) -> None:
    link = Link()
    with link.init_scope():
        link.W = Parameter()
        link.c = Parameter(3.0)
    link.to_device("@cupy:0")
    assert link.W.device == GpuDevice(0)
    link.W.initialize((2, 3))
    link.c.initialize((2,))
    assert type(link.W.array) is cupy.ndarray
    assert link.W.array.data.device_id == 0
    assert link.c.array.get().tolist() == [3, 3]
    opt = fastadam.Adam().setup(link)
    step(opt)
    assert opt.t == 1


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_stay_where_they_are(cupy: Any, how: Any) -> None:
    _, opt = trained("@cupy:0")
    twin = how(opt)
    assert all(type(param.array) is cupy.ndarray for param in twin.parameters.values())
    assert_same(opt, twin)
    for o in (opt, twin):
        step(o, 2)
    assert_same(opt, twin)


def test_copyparams_and_addgrads_between_devices(cupy: Any) -> None:
    here, _ = trained(steps=1)
    there, _ = trained("@cupy:0", steps=3)
    there.copyparams(here)
    for one, other in zip(there.params(), here.params(), strict=True):
        assert type(one.array) is cupy.ndarray
        assert_same_bits(one.array, other.array)
    sums = [
        on_cpu(a.grad) + on_cpu(b.grad) for a, b in zip(there.params(), here.params(), strict=True)
    ]
    there.addgrads(here)
    for param, total in zip(there.params(), sums, strict=True):
        assert_same_bits(param.grad, total)
    there.cleargrads()
    there.addgrads(here)
    for one, other in zip(there.params(), here.params(), strict=True):
        assert type(one.grad) is cupy.ndarray
        assert_same_bits(one.grad, other.grad)
    here.copyparams(there)
    assert all(type(param.array) is np.ndarray for param in here.params())


def test_old_methods(cupy: Any) -> None:
    link = Link(W=(2, 3))
    with pytest.warns(DeprecationWarning, match="to_device"):
        assert link.to_gpu() is link
    assert type(link.W.array) is cupy.ndarray
    with pytest.warns(DeprecationWarning, match="to_device"):
        link.to_cpu()
    assert type(link.W.array) is np.ndarray
    link.W.to_gpu(0)
    assert type(link.W.array) is cupy.ndarray
    link.W.to_cpu()
    assert type(link.W.array) is np.ndarray


def test_names_of_devices(cupy: Any) -> None:
    for name in ("@cupy:0", "@cupy", "cuda", "cuda:0", 0, "0", GpuDevice(0), cupy.cuda.Device(0)):
        device = check_device(name)
        assert device == GpuDevice(0)
        assert (device.name, device.number, device.xp) == ("@cupy:0", 0, cupy)
    assert GpuDevice(0) != CpuDevice()
    assert len({GpuDevice(0), GpuDevice(0), CpuDevice()}) == 2
    assert repr(GpuDevice(0)) == "<GpuDevice (cupy):0>"
    sent = GpuDevice(0).send([1.0, 2.0])
    assert type(sent) is cupy.ndarray
    assert GpuDevice(0).send(sent) is sent
    assert GpuDevice(0).send(None) is None
    assert CpuDevice().send(sent).tolist() == [1, 2]
    GpuDevice(0).use()
    assert cupy.cuda.runtime.getDevice() == 0


class Tensor:
    """Another library's array on a GPU, of which DLPack alone is known."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gradients_of_other_libraries_come_by_dlpack(cupy: Any, dtype: str) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    opts = [fastadam.Adam().setup({"w": cupy.ones(5, dtype)}) for _ in range(2)]
    gradient = cupy.asarray(np.arange(5).astype(dtype))
    opts[0].apply_gradients({"w": Tensor(gradient)})
    opts[1].apply_gradients({"w": gradient})
    assert_same(*opts)
    assert gradient.get().tolist() == [0, 1, 2, 3, 4]


def test_memory_of_other_libraries_is_a_target_by_dlpack(cupy: Any) -> None:
    tensor = Tensor(cupy.ones(5, np.float32))
    opt = fastadam.Adam(alpha=0.5).setup({"w": cupy.from_dlpack(tensor)})
    opt.apply_gradients({"w": cupy.ones(5, np.float32)})
    assert tensor.array.get() == pytest.approx(np.full(5, 0.5))


def test_what_chainers_devices_have(cupy: Any) -> None:
    device, there, here = GpuDevice(0), cupy.ones(2), np.ones(2)
    assert device.xp is cupy
    assert device.supported_array_types == (cupy.ndarray,)
    assert device.is_array_supported(there)
    assert not device.is_array_supported(here)
    assert not CpuDevice().is_array_supported(there)
    assert GpuDevice.from_array(there) == GpuDevice.from_device_id(0) == device
    assert GpuDevice(device.device) == device
    assert GpuDevice.from_array(here) is None
    assert CpuDevice.from_array(there) is None
    assert str(device) == "@cupy:0"
    with device.create_context():
        assert type(device.send([here, there])[0]) is cupy.ndarray


def test_repr_of_an_optimizer_says_where_its_parameters_are(cupy: Any) -> None:
    assert repr(fastadam.Adam().setup({"w": cupy.ones(2, "f4")})).endswith("float32, GPU 0>")
    both = {"w": cupy.ones(2, "f4"), "b": np.ones(2, "f4")}
    assert repr(fastadam.Adam().setup(both)).endswith("float32, CPU/GPU 0>")
