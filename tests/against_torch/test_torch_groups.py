"""Groups and their options: PyTorch's arguments, schedulers, hooks, closures."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler, optimizer
from torch_pairs import KINDS, Pair, named, same, snapshot, values

import fastadam.torch

WRONG: list[dict[str, Any]] = [
    {"lr": -1.0},
    {"eps": -1e-8},
    {"betas": (1.0, 0.9)},
    {"betas": (0.9, 1.5)},
    {"betas": (0.9, torch.tensor(0.9))},
    {"weight_decay": -0.1},
    {"lr": torch.tensor([0.1, 0.2])},
    {"lr": torch.tensor(0.1), "foreach": True},
    {"fused": True, "foreach": True},
    {"no_such_option": 1},
]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_are_refused_as_by_pytorch(kind: str) -> None:
    refused = 0
    for options in WRONG:
        errors: list[Exception | None] = []
        for library in (fastadam.torch, torch.optim):
            try:
                getattr(library, kind)([torch.nn.Parameter(torch.zeros(2))], **options)
            except (TypeError, ValueError, RuntimeError) as error:
                errors.append(error)
            else:
                errors.append(None)
        assert type(errors[0]) is type(errors[1]), options
        assert str(errors[0]) == str(errors[1]), options
        refused += errors[0] is not None
    # older versions of PyTorch take some of them
    assert refused >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_and_defaults_are_those_of_pytorch(kind: str) -> None:
    ours, theirs = (getattr(library, kind) for library in (fastadam.torch, torch.optim))
    assert issubclass(ours, theirs)
    found = inspect.signature(ours).parameters
    for name, expected in inspect.signature(theirs).parameters.items():
        assert found[name].default == expected.default
        assert found[name].kind is expected.kind
    assert list(found)[-3:] == ["max_grad_norm", "max_grad_value", "master_weights"]
    groups = [kind([torch.nn.Parameter(torch.zeros(2))]).param_groups[0] for kind in (ours, theirs)]
    for group in groups:
        del group["params"]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("option", ["capturable", "differentiable"])
def test_options_that_there_is_nothing_for(option: str) -> None:
    param = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=f"{option}=True"):
        fastadam.torch.Adam([param], **{option: True})
    opt = fastadam.torch.Adam([param], lr=0.1)
    other = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=rf"{option}=True \(param_groups\[1\]\)"):
        opt.add_param_group({"params": [other], option: True})
    assert len(opt.param_groups) == 1
    param.grad = torch.ones(2)
    opt.param_groups[0][option] = True
    before = snapshot(opt)
    with pytest.raises(ValueError, match=rf"group\['{option}'\] = False"):
        opt.step()
    assert same(snapshot(opt), before)
    opt.param_groups[0][option] = False
    opt.step()
    assert not torch.equal(param.detach(), torch.ones(2))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_with_options_of_their_own(kind: str) -> None:
    pair = Pair(kind, values(torch.float32)[:1], lr=0.1)
    for opt in (pair.ours, pair.theirs):
        opt.param_groups[0]["weight_decay"] = 0.2
    for options in ({"lr": 0.01, "amsgrad": True}, {"maximize": True, "betas": (0.5, 0.8)}):
        late = [torch.randn(5), torch.randn(2, 2)]
        for opt, params in pair.both:
            own = [torch.nn.Parameter(each.clone()) for each in late]
            params += own
            opt.add_param_group({"params": own, **options})
        for _ in range(4):
            pair.step()
        pair.check()
    assert repr(pair.ours).startswith(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_older_versions_do_not_say_how_they_decay(kind: str) -> None:
    pair = Pair(kind, values(torch.float32), lr=0.1, weight_decay=0.5)
    pair.ours.param_groups[0].pop("decoupled_weight_decay", None)
    for _ in range(3):
        pair.step()
        pair.check()


def test_numbers_may_be_tensors() -> None:
    lr, betas = torch.tensor(0.05), (torch.tensor(0.8), torch.tensor(0.95))
    pair = Pair("AdamW", values(torch.float32), lr=lr, betas=betas)
    assert pair.ours.param_groups[0]["lr"] is lr
    for value in (0.05, 0.01, 0.2):
        lr.fill_(value)
        pair.step()
        pair.check()
    old = pair.params[0][0].detach().clone()
    lr.fill_(0.0)
    pair.step()
    assert torch.equal(pair.params[0][0].detach(), old)


SCHEDULERS: dict[str, Any] = {
    "step": lambda opt: lr_scheduler.StepLR(opt, 2, 0.5),
    "lambda": lambda opt: lr_scheduler.LambdaLR(opt, lambda t: 0.9**t),
    "cosine": lambda opt: lr_scheduler.CosineAnnealingLR(opt, 5),
    "restarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 3),
    "one cycle": lambda opt: lr_scheduler.OneCycleLR(opt, 0.2, total_steps=12),
    "cyclic": lambda opt: lr_scheduler.CyclicLR(opt, 0.01, 0.1, 3, cycle_momentum=True),
    "exponential": lambda opt: lr_scheduler.ExponentialLR(opt, 0.8),
    "polynomial": lambda opt: lr_scheduler.PolynomialLR(opt, 10),
    "sequential": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.ConstantLR(opt, 0.1, 2), lr_scheduler.ExponentialLR(opt, 0.9)], [2]
    ),
}


@pytest.mark.parametrize("name", list(SCHEDULERS))
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_schedulers(name: str) -> None:
    pair = Pair("AdamW", values(torch.float32), lr=0.05, weight_decay=0.1)
    schedulers = [SCHEDULERS[name](opt) for opt, _ in pair.both]
    seen = set()
    for _ in range(8):
        pair.step()
        for scheduler in schedulers:
            scheduler.step()
        group, expected = pair.ours.param_groups[0], pair.theirs.param_groups[0]
        assert (group["lr"], group["betas"]) == (expected["lr"], expected["betas"])
        seen.add((group["lr"], group["betas"]))
    assert len(seen) > 1
    pair.check(3e-6)


def test_reduce_on_plateau() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.05)
    schedulers = [
        lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.1) for opt, _ in pair.both
    ]
    for _ in range(4):
        pair.step()
        for scheduler in schedulers:
            scheduler.step(1.0)
    assert pair.ours.param_groups[0]["lr"] < 0.01
    pair.check()


def test_closures() -> None:
    param = torch.nn.Parameter(torch.tensor([2.0]))
    opt = fastadam.torch.Adam([param], lr=0.1)

    def closure() -> torch.Tensor:
        assert torch.is_grad_enabled()
        opt.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert opt.step(closure).item() == 4.0
    assert abs(param.item() - 1.9) < 1e-6
    assert opt.step() is None


def test_hooks_before_and_after_each_step() -> None:
    calls: list[str] = []
    param = torch.nn.Parameter(torch.ones(2))
    opt = fastadam.torch.AdamW([param], lr=0.1)
    param.grad = torch.ones(2)
    opt.register_step_pre_hook(lambda *_: calls.append(f"pre {param[0].item():.3f}"))
    opt.register_step_post_hook(lambda *_: calls.append(f"post {param[0].item():.3f}"))
    handles = [
        optimizer.register_optimizer_step_pre_hook(lambda *_: calls.append("all pre")),
        optimizer.register_optimizer_step_post_hook(lambda *_: calls.append("all post")),
    ]
    try:
        opt.step()
    finally:
        for handle in handles:
            handle.remove()
    assert calls == ["all pre", "pre 1.000", "post 0.899", "all post"]
    opt.step()
    assert len(calls) == 6


def test_hook_that_changes_gradients() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.1)

    def halve(opt: Any, args: Any, kwargs: Any) -> None:
        for p in opt.param_groups[0]["params"]:
            p.grad = p.grad / 2

    for opt, _ in pair.both:
        opt.register_step_pre_hook(halve)
    pair.step()
    pair.step(1e-3)
    pair.check()


def test_hooks_of_a_class_that_has_a_step_of_its_own() -> None:
    class Noted(fastadam.torch.Adam):
        def step(self, closure: Any = None) -> Any:
            calls.append("step")
            return super().step(closure)

    calls: list[str] = []
    param = torch.nn.Parameter(torch.ones(2))
    opt = Noted([param], lr=0.1)
    opt.register_step_pre_hook(lambda *_: calls.append("pre"))
    param.grad = torch.ones(2)
    opt.step()
    assert calls == ["pre", "step"]
    assert param[0].item() < 1


def test_profiler_has_a_record_of_each_step() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    opt = fastadam.torch.AdamW([param], lr=0.1)
    param.grad = torch.ones(2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        opt.step()
        opt.zero_grad()
    names = {event.key for event in profile.key_averages()}
    assert "Optimizer.step#AdamW.step" in names
    assert "Optimizer.zero_grad#AdamW.zero_grad" in names


def test_zero_grad() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    opt = fastadam.torch.Adam([{"params": params[:1]}, {"params": params[1:], "lr": 0.1}])
    for p in params:
        p.grad = torch.ones(2)
    opt.zero_grad(set_to_none=False)
    assert [p.grad.tolist() for p in params] == [[0.0, 0.0], [0.0, 0.0]]
    opt.zero_grad()
    assert [p.grad for p in params] == [None, None]


def test_named_parameters() -> None:
    model = torch.nn.Linear(2, 3)
    opt = fastadam.torch.AdamW(named(model.named_parameters()), lr=0.1)
    assert opt.param_groups[0]["param_names"] == ["weight", "bias"]
    model(torch.ones(2)).sum().backward()
    model.bias.grad = None
    opt.step()
    assert opt.last_update.applied == ("weight",)
    assert opt.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


def test_nothing_to_step() -> None:
    opt = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(2))])
    opt.step()
    assert not opt.state
    assert opt.last_update.applied == ()


def test_numbers_that_went_out_of_range() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    opt = fastadam.torch.Adam([param], lr=0.1)
    param.grad = torch.ones(2)
    opt.step()
    for key, value, error in [
        ("betas", (0.9, 1.0), "betas"),
        ("betas", (1.0, 0.9), "betas"),
        ("betas", (0.9,), "two numbers"),
        ("eps", -1.0, "eps"),
        ("lr", "large", "lr must be a number"),
    ]:
        was = opt.param_groups[0][key]
        opt.param_groups[0][key] = value
        before = snapshot(opt)
        with pytest.raises((TypeError, ValueError), match=error):
            opt.step()
        assert same(snapshot(opt), before)
        opt.param_groups[0][key] = was
    opt.step()


def test_lists_of_groups_and_states_that_are_replaced() -> None:
    pair = Pair("AdamW", values(torch.float32), lr=0.1)
    pair.step()
    for opt, params in pair.both:
        group = dict(opt.param_groups[0])
        halves = {"params": params[:2], "lr": 0.02}, {"params": tuple(params[2:]), "lr": 0.3}
        opt.param_groups = [{**group, **half} for half in halves]
    for _ in range(2):
        pair.step()
        pair.check()
    for opt, params in pair.both:
        kept = opt.state
        opt.state = type(kept)(dict)
        opt.state[params[0]] = kept[params[0]]
    for _ in range(2):
        pair.step()
        pair.check()
    counts = [int(state["step"]) for state in pair.ours.state.values()]
    assert sorted(counts) == [2, 2, 2, 5]
