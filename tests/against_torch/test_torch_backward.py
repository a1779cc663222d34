"""Steps in backward passes, beside those after them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_pairs import named

import fastadam
import fastadam.torch


def network() -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for _ in range(6):
        layers += [torch.nn.Linear(16, 16), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers)


def gradient_bytes(model: torch.nn.Module) -> int:
    return sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("bucket", [0, 2500, 10**9])
def test_the_same_steps_with_less_memory(bucket: int) -> None:
    model = network()
    other = copy.deepcopy(model)
    options = {"lr": 0.02, "weight_decay": 0.1, "max_grad_value": 0.05}
    ours = fastadam.torch.AdamW(model.parameters(), **options)
    plain = fastadam.torch.AdamW(other.parameters(), **options)
    seen: list[int] = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda _: seen.append(gradient_bytes(model)))
    handle = fastadam.torch.step_in_backward(ours, bucket_bytes=bucket)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.7) for o in (ours, plain)]
    for _ in range(4):
        x = torch.randn(8, 16)
        for each, opt in ((model, ours), (other, plain)):
            (each(x) ** 2).sum().backward()
            opt.step()
            opt.zero_grad()
        for scheduler in schedulers:
            scheduler.step()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
        assert sorted(ours.last_update.applied) == sorted(plain.last_update.applied)
    # one weight has 1024 bytes, one bias 64
    assert max(seen) <= min(bucket + 1024, 6 * 1088)
    handle.remove()
    (model(x) ** 2).sum().backward()
    assert gradient_bytes(model) == 6 * 1088
    assert len(fastadam.torch.AdamW(model.parameters()).state) == 0


def test_a_weight_that_is_used_twice() -> None:
    layers = [torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)]
    layers[1].weight = layers[0].weight
    model = torch.nn.Sequential(*layers)
    other = copy.deepcopy(model)
    ours = fastadam.torch.Adam(model.parameters(), lr=0.1)
    plain = torch.optim.Adam(other.parameters(), lr=0.1)
    fastadam.torch.step_in_backward(ours, bucket_bytes=0)
    for _ in range(3):
        x = torch.randn(2, 4)
        for each, opt in ((model, ours), (other, plain)):
            opt.zero_grad()
            (each(x) ** 2).sum().backward()
            opt.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_second_backward_before_the_step_is_refused() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.Adam(named([("w", w)]), lr=0.1)
    for bucket in (0, 1000):
        handle = fastadam.torch.step_in_backward(opt, bucket_bytes=bucket)
        (2 * w).sum().backward()
        value = w.detach().clone()
        with pytest.raises(RuntimeError, match=r"second gradient of parameter 'w'.*step\(\)"):
            (2 * w).sum().backward()
        assert torch.equal(w.detach(), value)
        opt.zero_grad()
        opt.step()
        (2 * w).sum().backward()
        opt.step()
        assert w.grad is None
        handle.remove()


def test_a_parameter_that_is_read_after_it_was_stepped() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    x = torch.ones(3, requires_grad=True)
    opt = fastadam.torch.Adam([w], lr=0.1)
    fastadam.torch.step_in_backward(opt, bucket_bytes=0)
    # the product comes last in the pass, and needs w
    y = (w.detach() * x) ** 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (y.sum() + w.sum()).backward()


def test_what_needs_all_gradients_is_refused() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.Adam([w], lr=0.1, max_grad_norm=1.0)
    with pytest.raises(RuntimeError, match="max_grad_norm"):
        fastadam.torch.step_in_backward(opt)
    opt.max_grad_norm = None
    handle = fastadam.torch.step_in_backward(opt)
    with pytest.raises(ValueError, match="already"):
        fastadam.torch.step_in_backward(opt)
    opt.max_grad_norm = 1.0
    with pytest.raises(RuntimeError, match="max_grad_norm"):
        (2 * w).sum().backward()
    assert torch.equal(w.detach(), torch.ones(3))
    opt.max_grad_norm = None
    opt.zero_grad()
    opt.found_inf = torch.tensor(0.0)
    with pytest.raises(RuntimeError, match="GradScaler"):
        opt.step()
    del opt.found_inf
    hook = opt.register_step_pre_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="hook before steps"):
        (2 * w).sum().backward()
    hook.remove()
    handle.remove()
    opt.zero_grad()
    (2 * w).sum().backward()
    assert torch.equal(w.detach(), torch.ones(3))


def test_arguments() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (torch.optim.Adam([w]), 0, TypeError, "torch.optim.adam.Adam"),
        (fastadam.torch.Adam([w]), 1.5, TypeError, "integer"),
        (fastadam.torch.Adam([w]), True, TypeError, "integer"),
        (fastadam.torch.Adam([w]), -1, ValueError, "at least 0"),
    ]
    for opt, bucket, error, message in cases:
        with pytest.raises(error, match=message):
            fastadam.torch.step_in_backward(opt, bucket_bytes=bucket)


def test_late_parameters_and_frozen_ones() -> None:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(3)]
    params[1].requires_grad_(False)
    opt = fastadam.torch.Adam(params[:2], lr=0.1)
    fastadam.torch.step_in_backward(opt, bucket_bytes=0)
    opt.add_param_group({"params": params[2:], "lr": 0.2})
    sum((2 * p).sum() for p in params).backward()
    assert [p.grad for p in params] == [None, None, None]
    opt.step()
    expected = [0.9, 1.0, 0.8]
    for p, value in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), torch.full((3,), value))
    # a copy steps as optimizers do
    copied = copy.deepcopy(opt)
    other = copied.param_groups[0]["params"][0]
    (2 * other).sum().backward()
    assert other.grad is not None


def test_a_handle_of_earlier_ends_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.AdamW([p], lr=0.1)
    first = fastadam.torch.step_in_backward(opt, 0)
    first.remove()
    second = fastadam.torch.step_in_backward(opt, 0)
    first.remove()
    for _ in range(2):
        p.sum().backward()
        assert p.grad is None
        opt.step()
    assert opt.state[p]["step"] == 2
    second.remove()
    p.sum().backward()
    assert p.grad is not None


def test_an_optimizer_that_is_gone_steps_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.AdamW([p], lr=0.1)
    handle = fastadam.torch.step_in_backward(opt, 0)
    del opt
    for _ in range(2):
        p.sum().backward()
    assert p.grad is not None
    assert p.grad.tolist() == [2, 2, 2]
    assert p.tolist() == [1, 1, 1]
    handle.remove()


def test_looks_and_loads_while_a_pass_is_half_stepped(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    opt = fastadam.torch.AdamW(model.parameters())
    handle = fastadam.torch.step_in_backward(opt, bucket_bytes=0)
    path = tmp_path / "run.npz"
    model(torch.ones(3)).sum().backward()
    opt.step()
    fastadam.save(path, opt)
    old = path.read_bytes()
    states = copy.deepcopy(opt.state_dict())
    hooks = [
        opt.register_state_dict_pre_hook(lambda _: seen.append("state_dict")),
        opt.register_load_state_dict_pre_hook(lambda *_: seen.append("load_state_dict")),
    ]
    seen: list[str] = []
    tried = []

    def refused(_: object) -> None:
        message = r"half-way.* [123] of its 4 parameters.*step\(\)"
        for doing in (
            lambda: fastadam.save(path, opt),
            lambda: fastadam.load(path, opt),
            lambda: fastadam.snapshot(opt),
            lambda: fastadam.compare(opt, opt),
            opt.state_dict,
            lambda: opt.load_state_dict(states),
            lambda: copy.copy(opt),
            lambda: copy.deepcopy(opt),
            lambda: copy.deepcopy([model, opt]),
            lambda: pickle.dumps(opt),
            lambda: pickle.dumps(opt, protocol=0),
        ):
            with pytest.raises(RuntimeError, match=message):
                doing()
        tried.append(True)

    # by then those of the second layer have been stepped, and the bias of the first
    hook = model[0].weight.register_post_accumulate_grad_hook(refused)
    handle.remove()
    handle = fastadam.torch.step_in_backward(opt, bucket_bytes=0)
    model(torch.ones(3)).sum().backward()
    assert tried
    # hooks of theirs would have seen it half stepped
    assert seen == []
    assert path.read_bytes() == old
    hook.remove()
    # a step ends the pass
    opt.step()
    for copied in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert [int(state["step"]) for state in copied.state.values()] == [2, 2, 2, 2]
    assert int(opt.state_dict()["state"][0]["step"]) == 2
    opt.load_state_dict(states)
    assert seen == ["state_dict", "load_state_dict"]
    for each in hooks:
        each.remove()
    fastadam.load(path, opt)
    assert [int(state["step"]) for state in opt.state.values()] == [1, 1, 1, 1]
    fastadam.save(path, opt)

    # before the first bucket is full nothing has been stepped
    handle.remove()
    fastadam.torch.step_in_backward(opt)
    model(torch.ones(3)).sum().backward()
    fastadam.save(path, opt)
    copy.deepcopy(opt).load_state_dict(opt.state_dict())
