"""A module as a target, beside autograd, the garbage collector and the compiler."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastadam
from fastadam import CheckpointError
from fastadam.optimizer_hooks import GradientClipping, WeightDecay


def versions(*tensors: Any) -> list[int]:
    return [tensor._version for tensor in tensors]


@pytest.mark.parametrize("how", ["set up", "updated", "hooked", "refused", "loss"])
def test_nothing_waits_for_the_garbage_collector(how: str) -> None:
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam().setup(module)
    if how == "hooked":
        opt.add_hook(lambda o: None, name="nothing")
        opt.add_hook(GradientClipping(1.0))
    gc.disable()
    try:
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        if how in ("updated", "hooked"):
            opt.update()
            opt.update()
        elif how == "loss":
            opt.update(lambda of: of(torch.ones(3)).sum(), module)
        elif how == "refused":
            module.bias.grad = torch.full((2,), torch.nan)
            opt.on_nonfinite = "raise"
            with pytest.raises(FloatingPointError):
                opt.update()
        left = weakref.ref(module)
        del module, opt, p
        assert left() is None
    finally:
        gc.enable()


def two() -> tuple[Any, Any]:
    """A module of two parameters, and its optimizer, which has made a step."""
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam().setup(module)
    fill(module)
    opt.update()
    return module, opt


def fill(module: torch.nn.Module, value: float = 1.0) -> None:
    for p in module.parameters():
        p.grad = torch.full_like(p, value)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("how", ["disabled", "skip", "none at all", "not finite", "post"])
def test_autograd_hears_of_no_tensor_that_is_left_alone(how: str, hooked: bool) -> None:
    module, opt = two()
    if hooked:
        opt.add_hook(lambda o: None, name="nothing")
    fill(module)
    written = [module.weight]
    if how == "disabled":
        opt.parameters["bias"].update_rule.enabled = False
    elif how == "skip":
        opt.missing_gradients = "skip"
        module.bias.grad = None
    elif how == "none at all":
        opt.missing_gradients = "skip"
        module.zero_grad()
        written = []
    elif how == "not finite":
        opt.on_nonfinite = "skip"
        module.weight.grad[0, 0] = torch.inf
        written = []
    elif how == "post":
        opt.parameters["bias"].update_rule.enabled = False
        opt.add_hook(lambda o: None, name="last", timing="post")
    for _ in range(2):
        before = dict(module.named_parameters())
        old = {name: versions(p) for name, p in before.items()}
        values = {name: p.detach().clone() for name, p in before.items()}
        opt.update()
        for name, p in before.items():
            known = any(p is tensor for tensor in written)
            assert (versions(p) != old[name]) == known, name
            assert torch.equal(values[name], p) != known, name
    # and a graph that was made before is good still
    loss = (module.bias**3).sum() + (0 if written else (module.weight**3).sum())
    opt.update()
    loss.backward()


@pytest.mark.parametrize("how", ["no gradient fits", "a hook raises", "raise"])
def test_autograd_hears_of_no_update_that_was_refused(how: str) -> None:
    module, opt = two()
    fill(module, torch.nan if how == "raise" else 1.0)
    old = versions(module.weight, module.bias)
    if how == "no gradient fits":
        with pytest.raises(ValueError, match="bias"):
            opt.apply_gradients({"weight": torch.ones(2, 3), "bias": torch.ones(5)})
    elif how == "raise":
        opt.on_nonfinite = "raise"
        with pytest.raises(FloatingPointError):
            opt.update()
    else:
        opt.add_hook(lambda o: 1 // 0, name="broken")
        with pytest.raises(ZeroDivisionError):
            opt.update()
    assert versions(module.weight, module.bias) == old


@pytest.mark.parametrize("where", ["rule", "post hook", "loss scale"])
def test_autograd_hears_of_an_update_that_broke_off(where: str) -> None:
    """What may have been written is told, also where an error comes afterwards."""

    class Scaled(fastadam.Adam):
        def update_loss_scale(self) -> None:
            if self.t > 1:
                raise ZeroDivisionError

    module = torch.nn.Linear(3, 2)
    opt = (Scaled if where == "loss scale" else fastadam.Adam)().setup(module)
    fill(module)
    opt.update()
    if where == "rule":
        opt.parameters["bias"].update_rule.add_hook(lambda rule, p: 1 // 0, "broken", "post")
    elif where == "post hook":
        opt.add_hook(lambda o: 1 // 0, name="broken", timing="post")
    for _ in range(2):
        old, values = versions(*module.parameters()), module.weight.detach().clone()
        fill(module)
        with pytest.raises(ZeroDivisionError):
            opt.update()
        assert not torch.equal(values, module.weight)
        new = versions(*module.parameters())
        assert all(now > before for now, before in zip(new, old, strict=True))


def test_autograd_hears_of_an_array_put_into_a_parameter() -> None:
    module, opt = two()
    param = opt.parameters["bias"]
    param.update_rule.enabled = False
    for outside in (True, False):

        def put(optimizer: Any) -> None:
            optimizer.parameters["bias"].array = np.full(2, 5.0, np.float32)

        if outside:
            put(opt)
        else:
            opt.add_hook(put, name="put")
        module.bias.detach().zero_()
        old = versions(module.bias)
        opt.update()
        assert module.bias.tolist() == [5.0, 5.0]
        assert versions(module.bias) > old


def test_gradients_that_overlap_themselves_are_copied_before_they_are_written() -> None:
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    arrays = {"w": np.array([1.0, 2.0, 3.0], np.float32)}
    ours, numpys = fastadam.Adam().setup(module), fastadam.Adam().setup(arrays)
    for opt in (ours, numpys):
        opt.add_hook(WeightDecay(0.5))
    for _ in range(3):
        module.w.grad = torch.ones(()).expand(3)
        ours.update()
        numpys.apply_gradients({"w": np.ones(3, np.float32)})
        assert module.w.tolist() == arrays["w"].tolist()
        assert module.w.grad.tolist() == [1.0, 1.0, 1.0]
    # and divided
    ours.loss_scaling(scale=4.0)
    ours.update(lambda: module.w.sum())
    numpys.apply_gradients({"w": np.ones(3, np.float32)})
    assert module.w.tolist() == arrays["w"].tolist()


def custom(rule: Any, param: Any) -> None:
    param.grad *= 2


custom.call_for_each_param = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "how", ["clip", "decay", "custom", "rule", "post", "scale", "plain", "monitor", "given"]
)
def test_autograd_hears_of_gradients_that_hooks_write(how: str) -> None:
    module, opt = two()
    hooks: dict[str, Callable[[], Any]] = {
        "clip": lambda: opt.add_hook(GradientClipping(0.1)),
        "decay": lambda: opt.add_hook(WeightDecay(0.1)),
        "given": lambda: opt.add_hook(WeightDecay(0.1)),
        "custom": lambda: opt.add_hook(custom),
        "post": lambda: opt.add_hook(custom, timing="post"),
        "rule": lambda: opt.parameters["weight"].update_rule.add_hook(custom),
        "scale": lambda: opt.loss_scaling(scale=4.0),
        "monitor": lambda: setattr(opt, "monitor", True),
    }
    hooks.get(how, lambda: None)()
    for _ in range(2):
        fill(module)
        if how == "scale":
            module.zero_grad()
            loss = module(torch.ones(3)).sum()
            opt._targets.backward(loss, 4.0)
        grads = [p.grad for p in module.parameters()]
        old = versions(*grads)
        if how == "given":
            opt.apply_gradients({name: p.grad for name, p in module.named_parameters()})
        else:
            opt.update()
        now = [p.grad for p in module.parameters()]
        assert all(mine is grad for mine, grad in zip(now, grads, strict=True))
        told = versions(module.weight.grad)[0] > old[0]
        assert told == (how not in ("plain", "monitor", "given"))


@pytest.mark.parametrize("how", ["loss", "update", "given", "hooked", "arrays"])
def test_an_update_breaks_the_graph_of_torch_compile(how: str) -> None:
    torch.manual_seed(1)
    module, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(module.state_dict())
    opt, plain = fastadam.Adam().setup(module), fastadam.Adam().setup(other)
    arrays = {"w": np.ones(3, np.float32)}
    of_arrays = fastadam.Adam().setup(arrays)
    if how == "hooked":
        opt.add_hook(GradientClipping(0.1))
        plain.add_hook(GradientClipping(0.1))

    def step(optimizer: Any, net: Any) -> Any:
        y = torch.tanh(x) * 2
        if how == "loss":
            optimizer.update(lambda a: (net(a) ** 2).mean(), y)
        else:
            net.zero_grad()
            (net(y) ** 2).mean().backward()
            if how == "given":
                optimizer.apply_gradients({"weight": net.weight.grad, "bias": net.bias.grad})
            else:
                optimizer.update()
            if how == "arrays":
                of_arrays.apply_gradients({"w": np.ones(3, np.float32)})
        return y.sum()

    compiled = torch.compile(step, backend="eager")
    for n in range(3):
        mine, theirs = compiled(opt, module), step(plain, other)
        torch.testing.assert_close(mine, theirs)
        assert opt.t == plain.t == n + 1
        assert of_arrays.t == (2 * n + 2 if how == "arrays" else 0)
    torch.testing.assert_close(module.state_dict(), other.state_dict())


@pytest.mark.parametrize("parameters", [True, False])
def test_files_of_what_is_uninitialised_here(tmp_path: Path, parameters: bool) -> None:
    def made() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LazyLinear(2))

    path, module, other = tmp_path / "run.npz", made(), made()
    opt, again = fastadam.Adam().setup(module), fastadam.Adam().setup(other)
    opt.update(lambda: module(torch.ones(5, 3)).mean())
    fastadam.save(path, opt)
    words = r"'1\.weight', '1\.bias' are uninitialised here: call the module once, and load then"
    with pytest.raises(CheckpointError, match=words):
        fastadam.load(path, again, parameters=parameters)
    other(torch.ones(5, 3))
    fastadam.load(path, again, parameters=parameters)
    assert again.parameters["1.bias"].update_rule.t == 1
    # what is missing otherwise is said as ever
    less = fastadam.Adam().setup(torch.nn.Sequential(torch.nn.Linear(3, 4)))
    with pytest.raises(CheckpointError, match="no place for"):
        fastadam.load(path, less)


def test_buffers_are_compared() -> None:
    torch.manual_seed(1)
    modules = [torch.nn.BatchNorm1d(3) for _ in range(2)]
    for module in modules:
        module.register_buffer("mask", torch.tensor([True, False]))
        module.register_buffer("passing", torch.randn(2), persistent=False)
    one, other = (fastadam.Adam().setup(module) for module in modules)
    before = fastadam.snapshot(one)
    assert not fastadam.compare(one, other)
    modules[1].running_mean[1] += 1
    modules[1].num_batches_tracked += 2
    modules[1].mask[0] = False
    for pair in ((one, other), (before, other), tuple(modules)):
        found = fastadam.compare(*pair)
        assert [(d.where, d.what, d.first_index) for d in found] == [
            ("running_mean", "kept", (1,)),
            ("num_batches_tracked", "kept", ()),
            ("mask", "kept", (0,)),
        ]
    # a snapshot has arrays of its own, and == is of all but values
    assert before.arrays["running_mean", "kept"].tolist() == [0.0, 0.0, 0.0]
    assert before.paths == ("weight", "bias")
    assert one == other
    del modules[1].mask
    assert one == other
    assert "mask" in {d.where for d in fastadam.compare(one, other) if d.b is not None}
