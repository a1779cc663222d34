"""A module of PyTorch's as the target of ``setup``, beside NumPy's arrays as one."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastadam
from fastadam import CheckpointError
from fastadam.model.parameter import peek_grad
from fastadam.optimizer_hooks import GradientClipping, GradientNoise, Lasso, WeightDecay

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"alpha": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 1e-4},
    "AdamW": {"alpha": 0.03, "eta": 0.7, "weight_decay_rate": 0.1, "decay_mode": "alpha"},
    "AMSGrad": {"alpha": 0.03, "beta1": 0.7, "eps_mode": "paper"},
    "AdaBound": {"alpha": 0.03, "final_lr": 0.2, "gamma": 0.05},
    "AMSBound": {"alpha": 0.03, "final_lr": 0.3, "gamma": 0.02},
}


class Net(torch.nn.Module):
    """Parameters in several layouts, a buffer, and a loss that uses all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.filters = torch.nn.Parameter(
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        )
        self.turned = torch.nn.Parameter(torch.randn(4, 2).t())
        self.gaps = torch.nn.Parameter(torch.randn(4, 6)[:, ::3])
        self.scalar = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(torch.tanh(self.first(x))) @ self.turned.t() @ self.gaps.t()
        found: torch.Tensor = (y**2).mean() * self.scalar + (self.filters**2).mean()
        return found


def arrays_of(module: torch.nn.Module) -> dict[str, Any]:
    """Copies of all parameters, as NumPy has them; of bfloat16 as ml_dtypes has it."""
    found: dict[str, Any] = {}
    for name, p in module.named_parameters():
        found[name] = as_array(p)
    return found


def as_array(tensor: torch.Tensor) -> Any:
    values = tensor.detach()
    if values.dtype == torch.bfloat16:
        ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
        return values.float().numpy().astype(ml_dtypes.bfloat16)
    return values.numpy().copy(order="K")


def gradients_of(module: torch.nn.Module) -> dict[str, Any]:
    return {
        name: None if p.grad is None else as_array(p.grad) for name, p in module.named_parameters()
    }


class Beside:
    """An optimizer of a module, and one of NumPy's arrays."""

    def __init__(self, module: torch.nn.Module, kind: str = "AdamW", **more: Any) -> None:
        self.module, self.arrays = module, arrays_of(module)
        options = {**OPTIMIZERS[kind], **more}
        self.ours = getattr(fastadam, kind)(**options).setup(module)
        self.numpys = getattr(fastadam, kind)(**options).setup(self.arrays)

    @property
    def both(self) -> tuple[Any, Any]:
        return self.ours, self.numpys

    def step(self, *names: str) -> None:
        """One step from gradients that are new; of those that are named, none."""
        for name, p in self.module.named_parameters():
            p.grad = None if name in names else torch.randn_like(p)
        grads = gradients_of(self.module)
        self.ours.update()
        self.numpys.apply_gradients(grads)

    def check(self) -> None:
        """The same bits in parameters and states."""
        for name, p in self.module.named_parameters():
            mine, other = as_array(p), self.arrays[name]
            assert mine.dtype == other.dtype
            assert mine.tobytes() == np.array(other).tobytes(), name
        assert list(self.ours.parameters) == list(self.numpys.parameters)
        for name, param in self.ours.parameters.items():
            rule, other = param.update_rule, self.numpys.parameters[name].update_rule
            assert rule.t == other.t, name
            assert (rule.state is None) == (other.state is None), name
            for key, value in (rule.state or {}).items():
                assert value.dtype == other.state[key].dtype
                assert value.tobytes() == other.state[key].tobytes(), (name, key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_same_bits_as_with_arrays(kind: str, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    module = Net().to(dtype)
    before = [(p, p.data_ptr()) for p in module.parameters()]
    beside = Beside(module, kind)
    for _ in range(4):
        beside.step()
        beside.check()
    assert [(p, p.data_ptr()) for p in module.parameters()] == before
    assert beside.ours.t == 4
    assert beside.ours.target is module


@pytest.mark.parametrize("how", ["hooks", "post", "rule", "masters", "monitor", "scale", "noise"])
def test_same_bits_with_hooks_and_scales(how: str) -> None:
    beside = Beside(Net().half() if how == "masters" else Net())
    for opt in beside.both:
        if how == "hooks":
            opt.add_hook(WeightDecay(0.1))
            opt.add_hook(Lasso(0.01))
            opt.add_hook(GradientClipping(0.5))
        elif how == "post":
            opt.add_hook(
                lambda o: [p.array.clip(-1, 1, out=p.array) for p in o.parameters.values()],
                name="clip",
                timing="post",
            )
        elif how == "rule":
            opt.parameters["first.bias"].update_rule.add_hook(WeightDecay(0.3))
            opt.set_hyperparam("first.*", alpha=0.5)
        elif how == "masters":
            opt.use_fp32_update()
        elif how == "monitor":
            opt.monitor = True
        elif how == "scale":
            opt.on_nonfinite = "skip"
        elif how == "noise":
            opt.add_hook(GradientNoise(0.1))
    for _ in range(4):
        np.random.seed(1)
        state = np.random.get_state()
        for p in beside.module.parameters():
            p.grad = torch.randn_like(p)
        grads = gradients_of(beside.module)
        beside.ours.update()
        np.random.set_state(state)
        beside.numpys.apply_gradients(grads)
        beside.check()
    ours, numpys = (opt.last_update for opt in beside.both)
    assert (ours.grad_norm, ours.applied) == (numpys.grad_norm, numpys.applied)


def test_a_loss_function() -> None:
    torch.manual_seed(1)
    module = Net()
    beside = Beside(module, "AMSGrad")
    x = torch.randn(8, 3)
    for _ in range(3):
        module.first.weight.grad = torch.full((4, 3), 1e6)  # which is cleared
        loss = beside.ours.update(lambda x: module(x), x)
        assert loss.grad_fn is None
        grads = gradients_of(module)
        assert all(grad is not None for grad in grads.values())
        beside.numpys.apply_gradients(grads)
        beside.check()
    with pytest.raises(TypeError, match=r"float without gradients.*backward\(\)"):
        beside.ours.update(lambda: 1.0)
    with pytest.raises(RuntimeError, match="does not require grad"):
        beside.ours.update(lambda: torch.zeros(()))
    beside.check()


def test_gradients_that_are_given() -> None:
    module = Net()
    beside = Beside(module)
    for _ in range(3):
        tensors = {name: torch.randn_like(p) for name, p in module.named_parameters()}
        beside.ours.apply_gradients(tensors)
        beside.numpys.apply_gradients({name: grad.numpy() for name, grad in tensors.items()})
        beside.check()
    assert all(p.grad is None for p in module.parameters())
    with pytest.raises(TypeError, match=r"a mapping from the name .*'filters'"):
        beside.ours.apply_gradients([torch.ones(2)])
    with pytest.raises(ValueError, match=r"second\.weight"):
        beside.ours.apply_gradients({**tensors, "second.weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"first\.bias"):
        beside.ours.apply_gradients({k: v for k, v in tensors.items() if k != "first.bias"})
    with pytest.raises(ValueError, match=r"first\.bias.*shape"):
        beside.ours.apply_gradients({**tensors, "first.bias": torch.ones(5)})
    beside.check()


@pytest.mark.parametrize("missing", ["zeros", "skip"])
def test_missing_gradients(missing: str) -> None:
    beside = Beside(Net())
    for opt in beside.both:
        opt.missing_gradients = missing
    for names in ((), ("first.weight", "scalar"), ("gaps",), ()):
        beside.step(*names)
        beside.check()
        for name in names:
            assert beside.module.get_parameter(name).grad is None


def test_the_module_is_followed() -> None:
    module = Net()
    beside = Beside(module, "AMSGrad")
    beside.step()
    # another dtype: the state goes on in it
    module.double()
    beside.arrays.update(arrays_of(module))
    for param in beside.numpys.parameters.values():
        state = param.update_rule.state
        state.update({key: value.astype(np.float64) for key, value in state.items()})
    beside.step()
    beside.check()
    # other tensors under the names
    other = Net().double()
    module.load_state_dict(other.state_dict(), assign=True)
    beside.arrays.update(arrays_of(module))
    beside.step()
    beside.check()
    # other memory, and other tensors by hand
    module.scalar.data = torch.tensor(3.0, dtype=torch.float64)
    module.first.bias = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    beside.arrays.update(arrays_of(module))
    beside.step()
    beside.check()
    # one that comes, and one that goes
    module.late = torch.nn.Linear(2, 2).double()
    del module.gaps
    found = arrays_of(module)
    for name in set(beside.arrays) - set(found):
        del beside.arrays[name]
    beside.arrays.update(found)
    for _ in range(2):
        beside.step()
    assert beside.ours.parameters["late.bias"].update_rule.t == 2
    assert beside.ours.parameters["first.bias"].update_rule.t == 6
    for name, p in module.named_parameters():
        assert as_array(p).tobytes() == beside.arrays[name].tobytes(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_masters_follow(dtype: torch.dtype) -> None:
    """To half precision and back: masters come and go."""
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam(alpha=1e-3).setup(module)
    opt.use_fp32_update()
    for kind in (torch.float16, dtype, torch.float32):
        module.to(kind)
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        opt.update()
        rule = opt.parameters["weight"].update_rule
        assert rule.state["m"].dtype == np.float32
        saved = fastadam.serializers.serialize(rule)
        assert ("fp32_param" in saved) == (kind == torch.float16)


def test_uninitialised_parameters_come_later() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LazyLinear(2))
    opt = fastadam.Adam().setup(module)
    assert list(opt.parameters) == ["0.weight", "0.bias"]
    opt.update(lambda: module(torch.ones(5, 3)).mean())
    assert list(opt.parameters) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [p.update_rule.t for p in opt.parameters.values()] == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="LazyLinear has no parameters yet"):
        fastadam.Adam().setup(torch.nn.LazyLinear(2))


def test_frozen_parameters_stay_and_thaw() -> None:
    module = Net()
    opt = fastadam.AdamW(alpha=0.1, weight_decay_rate=0.1, decay_mode="alpha").setup(module)
    opt.add_hook(WeightDecay(0.1))
    opt.monitor = True

    def step() -> None:
        opt.update(lambda: module(torch.randn(8, 3)))

    step()
    module.first.requires_grad_(False)
    before = arrays_of(module)
    strides: list[tuple[int, ...]] = []
    opt.add_hook(
        lambda o: strides.append(peek_grad(o.parameters["first.weight"]).strides), name="look"
    )
    # what a gradient is left over from
    module.first.bias.grad = torch.full((4,), 1e9)
    states = {k: v.copy() for k, v in opt.parameters["first.bias"].update_rule.state.items()}
    for _ in range(2):
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        opt.update()
        assert not {"first.weight", "first.bias"} & set(opt.last_update.applied)
        assert opt.last_update.grad_norm < 100
        step()
    after = arrays_of(module)
    for name in before:
        assert (before[name].tobytes() == after[name].tobytes()) == name.startswith("first."), name
    # zeros that take no memory are in the place of its gradient
    assert set(strides) == {(0, 0)}
    opt.remove_hook("look")
    param = opt.parameters["first.bias"]
    assert param.update_rule.t == 1
    for key, value in states.items():
        np.testing.assert_array_equal(param.update_rule.state[key], value)
    assert "first.bias    (4,)          float32         4  frozen " in repr(opt.parameters)
    # nobody needs a gradient for it, and nothing is made in its place
    opt.apply_gradients(
        {name: torch.zeros_like(p) for name, p in module.named_parameters() if p.requires_grad}
    )
    module.first.bias.requires_grad_(True)
    step()
    assert opt.parameters["first.bias"].update_rule.t == 2
    assert "first.bias" in opt.last_update.applied
    assert arrays_of(module)["first.bias"].tobytes() != after["first.bias"].tobytes()
    # and by the rule, as everywhere
    opt.parameters["scalar"].update_rule.enabled = False
    kept = module.scalar.item()
    step()
    assert module.scalar.item() == kept


def test_tied_parameters_are_stepped_once(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3, bias=False)
            self.other.weight = self.one.weight

    module = Tied()
    beside = Beside(module)
    for _ in range(3):
        beside.step()
        beside.check()
    assert list(beside.ours.parameters) == ["one.weight", "one.bias"]
    assert beside.ours._targets.aliases == {"other.weight": "one.weight"}
    # by the names that named_parameters() has
    grads = {name: torch.ones_like(p) for name, p in module.named_parameters()}
    beside.ours.apply_gradients(grads)
    assert beside.ours.parameters["one.weight"].update_rule.t == 4
    path = tmp_path / "run.npz"
    fastadam.save(path, beside.ours)
    other = Tied()
    again = fastadam.AdamW().setup(other)
    assert fastadam.load(path, again).left == ()
    assert other.other.weight is other.one.weight
    assert torch.equal(other.one.weight, module.one.weight)
    assert not fastadam.compare(again, beside.ours)


def test_autograd_knows_of_the_step() -> None:
    module = torch.nn.Linear(3, 1, bias=False)
    opt = fastadam.Adam().setup(module)
    loss = (module.weight**3).sum()
    opt.update(lambda: module(torch.ones(3)).sum())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    # in one call into C, and with a hook before it
    for given, hooked in ((False, False), (True, False), (False, True), (True, True)):
        if hooked and not given:
            opt.add_hook(lambda o: None, name="hook")
        module.weight.grad = torch.ones(1, 3)
        loss = (module.weight**3).sum()
        if given:
            opt.apply_gradients({"weight": torch.ones(1, 3)})
        else:
            opt.update()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    # a step that is refused has written nothing
    loss = (module.weight**3).sum()
    module.weight.grad = torch.ones(1, 3)
    opt.on_nonfinite = "raise"
    module.weight.grad[0, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="'weight'"):
        opt.update()
    module.weight.grad = None
    loss.backward()


def test_hooks_see_the_memory_of_tensors() -> None:
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam(alpha=0.5).setup(module)
    seen: list[str] = []

    def half(optimizer: Any) -> None:
        for path, param in optimizer.parameters.items():
            tensor = module.get_parameter(path)
            assert np.shares_memory(param.array, tensor.detach().numpy())
            assert np.shares_memory(param.grad, tensor.grad.numpy())
            param.grad *= 0.5
            seen.append(path)

    opt.add_hook(half)
    for p in module.parameters():
        p.grad = torch.full_like(p, 4.0)
    opt.update()
    assert seen == ["weight", "bias"]
    assert torch.equal(module.weight.grad, torch.full((2, 3), 2.0))

    def other(rule: Any, param: Any) -> None:
        param.grad = np.zeros_like(param.grad)

    other.call_for_each_param = True  # type: ignore[attr-defined]
    opt.add_hook(other)
    opt.update()
    np.testing.assert_array_equal(
        opt.parameters["bias"].update_rule.state["m"], np.full(2, 0.18, "f4")
    )


def test_rules_of_ones_own_that_replace_arrays() -> None:
    class Rule(fastadam.UpdateRule):
        def update_core(self, param: Any) -> None:
            param.array = param.array - param.grad

    class Sgd(fastadam.GradientMethod):
        def create_update_rule(self) -> Any:
            return Rule(self.hyperparam)

    module = torch.nn.Linear(3, 2)
    weight, address = module.weight.detach().clone(), module.weight.data_ptr()
    opt = Sgd().setup(module)
    for _ in range(2):
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        opt.update()
    assert torch.equal(module.weight.detach(), weight - 1 - 1)
    assert module.weight.data_ptr() == address


def test_arrays_keep_the_memory_that_they_lie_in() -> None:
    module = torch.nn.Linear(300, 200)
    opt = fastadam.Adam().setup(module)
    kept = opt.parameters["weight"].array
    values = kept.copy()
    module.weight.data = torch.zeros(200, 300)
    others = [torch.full((200, 300), 7.0) for _ in range(20)]
    np.testing.assert_array_equal(kept, values)
    assert len(others) == 20
    assert not np.shares_memory(opt.parameters["weight"].array, kept)


def test_gradients_are_let_go() -> None:
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam().setup(module)
    for hook in (None, lambda o: None):
        if hook is not None:
            opt.add_hook(hook, name="hook")
        opt.update(lambda: module(torch.ones(3)).sum())
        left = weakref.ref(module.weight.grad.untyped_storage())
        assert opt.parameters["weight"].grad is None
        module.zero_grad()
        assert left() is None


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_loss_scales(dtype: torch.dtype, hooks: bool) -> None:
    module = torch.nn.Linear(3, 2).to(dtype)
    beside = Beside(module, "Adam")
    for opt in beside.both:
        if hooks:
            opt.add_hook(GradientClipping(100.0))
            opt.add_hook(lambda o: None, name="nothing")
    beside.ours.loss_scaling(scale=64.0)
    x = torch.randn(5, 3, dtype=dtype)
    for _ in range(3):
        copied = copy.deepcopy(module)
        copied(x).mean().backward()
        beside.ours.update(lambda: module(x).mean())
        beside.numpys.apply_gradients(gradients_of(copied))
        beside.check()
        # the gradients are the module's still, and are what they were
        beside.ours.update()
        beside.numpys.apply_gradients(gradients_of(copied))
        beside.check()
    # others are not divided
    beside.step()
    beside.check()


def test_a_dynamic_loss_scale_skips() -> None:
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam().setup(module)
    opt.loss_scaling(interval=1)
    for _ in range(2):
        opt.update(lambda: module(torch.ones(3)).sum())
    scale = opt.loss_scale
    before = arrays_of(module)
    with pytest.warns(UserWarning, match="this update is skipped, the loss scale halved"):
        opt.update(lambda: module(torch.full((3,), 1e38)).sum() * 1e38)
    assert opt.last_update.skipped
    assert opt.loss_scale < scale
    assert scale > 1
    for name, array in arrays_of(module).items():
        assert array.tobytes() == before[name].tobytes()
    opt.update(lambda: module(torch.ones(3)).sum())
    assert not opt.last_update.skipped


def trained(kind: str, seed: int, dtype: torch.dtype, steps: int) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    module = Net().to(dtype)
    opt = getattr(fastadam, kind)(**OPTIMIZERS[kind]).setup(module)
    for _ in range(steps):
        opt.update(lambda: module(torch.randn(6, 3, dtype=dtype)))
    return module, opt


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["AdamW", "AMSBound"])
def test_checkpoints(tmp_path: Path, kind: str, dtype: torch.dtype, suffix: str) -> None:
    if suffix == ".h5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    path = tmp_path / f"run{suffix}"
    module, opt = trained(kind, 1, dtype, 3)
    opt.add_hook(WeightDecay(0.01))
    opt.use_fp32_update()
    opt.update(lambda: module(torch.randn(6, 3, dtype=dtype)))
    fastadam.save(path, opt)
    other, again = trained(kind, 2, dtype, 1)
    again.add_hook(WeightDecay(0.01))
    again.alpha = 3.0
    tensors = [*other.parameters(), *other.buffers()]
    before = [(t, t.data_ptr(), t._version) for t in tensors]
    report = fastadam.load(path, again)
    assert report.verified
    assert report.left == report.missing == ()
    assert {f"target/{name}" for name in module.state_dict()} <= set(report.read)
    for (tensor, address, version), now in zip(
        before, [*other.parameters(), *other.buffers()], strict=True
    ):
        assert tensor is now
        assert tensor.data_ptr() == address
        assert tensor._version > version
    assert not fastadam.compare(opt, again)
    for (name, value), (_, loaded) in zip(
        module.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert torch.equal(value, loaded), name
    for _ in range(2):
        x = torch.randn(6, 3, dtype=dtype)
        opt.update(lambda: module(x))  # noqa: B023 - called at once
        again.update(lambda: other(x))  # noqa: B023 - called at once
    assert not fastadam.compare(opt, again)


def test_misfits_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    module, opt = trained("AdamW", 1, torch.float32, 2)
    fastadam.save(path, opt)
    other, again = trained("AdamW", 2, torch.float32, 1)

    def refused(message: str) -> None:
        assert again.parameters  # a walk gives rules to what is new
        before, state = fastadam.snapshot(again), copy.deepcopy(other.state_dict())
        with pytest.raises(CheckpointError, match=message):
            fastadam.load(path, again)
        assert not fastadam.compare(again, before)
        for name, value in other.state_dict().items():
            assert torch.equal(value, state[name])

    other.first.bias = torch.nn.Parameter(torch.ones(5))
    refused(r"first\.bias' has shape \(4,\) in the file, but shape \(5,\)")
    other.first.bias = torch.nn.Parameter(torch.ones(4))
    other.norm.running_mean = torch.ones(3)
    refused(r"'target/norm\.running_mean' has shape")
    other.norm.running_mean = torch.ones(4)
    other.late = torch.nn.Parameter(torch.ones(3))
    refused("has no 'target/late'")
    del other.late
    other.norm.more = torch.nn.Buffer(torch.ones(2)) if hasattr(torch.nn, "Buffer") else None
    if other.norm.more is not None:
        refused(r"has no 'target/norm\.more'")
    del other.norm.more
    del other.scalar
    refused(r"no place for: .*scalar")
    # and arrays of the same names are as good as a module
    arrays = arrays_of(module)
    plain = fastadam.AdamW().setup(arrays)
    fastadam.load(path, plain, strict=False)
    assert arrays["scalar"] == module.scalar.item()


def test_frozen_in_a_file(tmp_path: Path) -> None:
    """Whether a tensor requires a gradient is the module's, and not the file's."""
    path = tmp_path / "run.npz"
    module, opt = trained("AMSBound", 1, torch.float32, 2)
    module.first.requires_grad_(False)
    opt.update(lambda: module(torch.randn(6, 3)))
    fastadam.save(path, opt)
    other, again = trained("AMSBound", 2, torch.float32, 1)
    fastadam.load(path, again)
    assert again.parameters["first.bias"].update_rule.t == 2
    again.update(lambda: other(torch.randn(6, 3)))
    assert again.parameters["first.bias"].update_rule.t == 3


def test_refusals_by_name() -> None:
    module = Net()
    opt = fastadam.Adam().setup(module)
    with pytest.raises(TypeError, match=r"'filters': a tensor of .*on meta"):
        fastadam.Adam().setup(Net().to("meta"))
    with pytest.raises(ValueError, match="the Tanh has no parameters"):
        fastadam.Adam().setup(torch.nn.Tanh())
    wide = torch.nn.Linear(2, 2)
    wide.weight = torch.nn.Parameter(torch.ones(1).expand(2, 2))
    with pytest.raises(RuntimeError, match=r"'weight': elements of it share memory"):
        fastadam.Adam().setup(wide)
    parts = torch.nn.Module()
    parts.whole = torch.nn.Parameter(torch.ones(6))
    parts.part = torch.nn.Parameter(parts.whole.detach()[2:5])
    with pytest.raises(ValueError, match=r"'whole' and 'part' share part of their memory"):
        fastadam.Adam().setup(parts)
    # and when that is mended, all is well again
    own = parts.part
    parts.part = torch.nn.Parameter(torch.ones(3))
    shared = fastadam.Adam().setup(parts)
    good, parts.part = parts.part, own
    with pytest.raises(ValueError, match="share part of their memory"):
        shared.apply_gradients({"whole": torch.ones(6), "part": torch.ones(3)})
    parts.part = good
    shared.apply_gradients({"whole": torch.ones(6), "part": torch.ones(3)})
    assert shared.t == 1
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    with pytest.raises(TypeError, match=r"'weight' is a tensor of torch\.sparse_coo: only dense"):
        fastadam.Adam().setup(embedding).update(lambda: embedding(torch.tensor([1])).sum())
    with pytest.raises(TypeError, match=r"give its memory as a NumPy array"):
        fastadam.Adam().setup(module.scalar)
    # a gradient that is left over from another shape
    module.scalar.grad = torch.tensor(1.0)
    grad, data = module.scalar.grad, module.scalar.data
    module.scalar.grad = None
    module.scalar.data = torch.ones(3)
    with pytest.raises(ValueError, match=r"scalar"):
        opt.apply_gradients({**gradients_of(module), "scalar": grad})
    module.scalar.data = data
    # after it was set up, and before anything is written
    before = arrays_of(module)
    module.norm.bias.data = module.norm.bias.data.to(torch.complex64)
    module.turned = torch.nn.Parameter(torch.ones(2, 4, device="meta"))
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match=r"parameter 'turned': a tensor of .*on meta"):
        opt.update()
    assert arrays_of(module.first)["bias"].tobytes() == before["first.bias"].tobytes()
    assert opt.t == 0


def test_numbers_that_are_no_floats_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    modules = [torch.nn.Linear(2, 2) for _ in range(2)]
    for i, module in enumerate(modules):
        module.table = torch.nn.Parameter(torch.full((3,), i), requires_grad=False)
        module.register_buffer("passing", torch.full((2,), float(i)), persistent=False)
        module.register_buffer("mask", torch.tensor([bool(i), True]))
    one, other = (fastadam.Adam().setup(module) for module in modules)
    assert list(one.parameters) == ["weight", "bias"]
    fastadam.save(path, one)
    fastadam.load(path, other)
    assert modules[1].table.tolist() == [0, 0, 0]
    assert modules[1].mask.tolist() == [False, True]
    assert modules[1].passing.tolist() == [1.0, 1.0]


def test_complex_parameters() -> None:
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.randn(4, dtype=torch.complex64))
    arrays = {"w": torch.view_as_real(module.w.detach()).numpy().copy()}
    opt, numpys = fastadam.Adam(alpha=0.1).setup(module), fastadam.Adam(alpha=0.1).setup(arrays)
    for _ in range(3):
        module.w.grad = torch.randn(4, dtype=torch.complex64)
        grad = torch.view_as_real(module.w.grad).numpy().copy()
        opt.update()
        numpys.apply_gradients({"w": grad})
    assert torch.view_as_real(module.w.detach()).numpy().tobytes() == arrays["w"].tobytes()


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_go_their_own_way(how: str) -> None:
    module, opt = trained("AMSGrad", 1, torch.float32, 2)
    copied = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
    other = copied.target
    assert other is not module
    kept = arrays_of(module)
    for p, q in zip(module.parameters(), other.parameters(), strict=True):
        q.grad = torch.randn_like(p)
        p.grad = q.grad.clone()
    copied.update()
    for name, array in arrays_of(module).items():
        assert array.tobytes() == kept[name].tobytes()
    opt.update()
    assert not fastadam.compare(opt, copied)
    assert arrays_of(module)["scalar"] != kept["scalar"]


def test_modules_are_compared() -> None:
    one, other = Net(), Net()
    other.load_state_dict(one.state_dict())
    assert not fastadam.compare(one, other)
    with torch.no_grad():
        other.first.bias[1] += 1
    difference = fastadam.compare(one, other)[0]
    assert (difference.where, difference.first_index) == ("first.bias", (1,))


def test_nobody_imports_the_bridge_by_hand() -> None:
    script = """
import sys
import fastadam
assert "torch" not in sys.modules
import torch
assert "fastadam.torch" not in sys.modules
class Own(torch.nn.Linear):
    def params(self):
        raise AssertionError
module = Own(3, 2)
opt = fastadam.Adam(alpha=0.1).setup(module)
before = module.weight.detach().clone()
opt.update(lambda: module(torch.ones(3)).sum())
print((before - module.weight).detach().mean().item())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert abs(float(done.stdout) - 0.1) < 1e-6


def test_names_of_a_compiled_module(tmp_path: Path) -> None:
    # what torch.compile returns has the module under this name
    compiled = torch.nn.Module()
    compiled._orig_mod = Net()
    opt = fastadam.Adam().setup(compiled)
    path = tmp_path / "run.npz"
    fastadam.save(path, opt)
    model = Net()
    plain = fastadam.Adam().setup(model)
    line = r"rename=lambda name: name\.replace\('_orig_mod\.', ''\)$"
    for how in ({}, {"parameters": False}):
        with pytest.raises(fastadam.CheckpointError, match=f"wraps a module.*{line}"):
            fastadam.load(path, plain, **how)
    report = fastadam.load(path, plain, rename=lambda name: name.replace("_orig_mod.", ""))
    assert report.missing == report.left == ()
    found, expected = model.state_dict(), compiled._orig_mod.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


class WithExtraState(torch.nn.Linear):  # type: ignore[misc]
    """A layer with a state of its own beside tensors, as a module makes it when it is saved."""

    def __init__(self, seen: int) -> None:
        super().__init__(2, 2)
        self.seen = seen

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.seen)

    def set_extra_state(self, state: torch.Tensor) -> None:
        raise AssertionError("it is called")


def test_extra_states_are_not_said_to_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opts = [
        fastadam.Adam().setup(torch.nn.Sequential(WithExtraState(seen), torch.nn.BatchNorm1d(2)))
        for seen in (5, 7)
    ]
    fastadam.save(path, opts[0])
    report = fastadam.load(path, opts[1])
    assert "target/1.running_mean" in report.read
    assert not [key for key in report.read if "extra" in key]
    assert not fastadam.compare(*opts)
    assert opts[1].target[0].seen == 7
