"""Checkpoints both ways, copies, and states that somebody has edited."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch_pairs import KINDS, Pair, same, snapshot, values

import fastadam.torch


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_goes_on_with_what_the_other_has_saved(kind: str, named: bool) -> None:
    pair = Pair(kind, values(torch.float32), lr=0.1, amsgrad=True, named=named)
    for _ in range(3):
        pair.step()
    for _ in range(2):
        states = [through_a_file(opt.state_dict()) for opt, _ in pair.both]
        assert states[0].keys() == states[1].keys()
        assert states[0]["param_groups"] == states[1]["param_groups"]
        for key, state in states[1]["state"].items():
            assert list(states[0]["state"][key]) == list(state)
            for name, value in state.items():
                found = states[0]["state"][key][name]
                assert (found.dtype, found.stride()) == (value.dtype, value.stride())
        for (opt, _), state in zip(pair.both, states[::-1], strict=True):
            opt.param_groups[0]["lr"] = 5.0
            opt.load_state_dict(state)
            assert opt.param_groups[0]["lr"] == 0.1
        pair.step()
        pair.check(3e-6)
    assert int(pair.ours.state[pair.params[0][0]]["step"]) == 5


def test_a_run_that_goes_there_and_back_is_a_run() -> None:
    whole = Pair("AdamW", values(torch.float32), lr=0.05)
    params = [torch.nn.Parameter(p.detach().clone()) for p in whole.params[1]]
    kinds = [torch.optim.AdamW, fastadam.torch.AdamW, torch.optim.AdamW]
    state: Any = None
    for kind in kinds:
        opt = kind(params, lr=1.0)
        if state is not None:
            opt.load_state_dict(state)
        else:
            opt.param_groups[0]["lr"] = 0.05
        for _ in range(3):
            whole.gradients()
            whole.theirs.step()
            for p, q in zip(params, whole.params[1], strict=True):
                p.grad = q.grad.clone()
            opt.step()
        state = through_a_file(opt.state_dict())
    for p, q in zip(params, whole.params[1], strict=True):
        torch.testing.assert_close(p, q, rtol=3e-6, atol=3e-6)


def test_no_memory_is_shared_with_the_dict() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.1)
    pair.step()
    given = pair.theirs.state_dict()
    pair.ours.load_state_dict(given)
    kept = copy.deepcopy(given)
    pair.step()
    assert not same(given["state"], pair.ours.state_dict()["state"])
    # PyTorch's own optimizer, whose dict it is, has stepped; ours has left it alone
    pair.ours.load_state_dict(kept)
    before = copy.deepcopy(kept)
    pair.step()
    assert same(before["state"], kept["state"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_moments_of_half_parameters_survive(dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    param = torch.nn.Parameter(torch.randn(40).to(dtype))
    opt = fastadam.torch.AdamW([param], lr=0.1)
    for _ in range(3):
        param.grad = torch.randn(40).to(dtype)
        opt.step()
    state = through_a_file(opt.state_dict())
    other = torch.nn.Parameter(param.detach().clone())
    again = fastadam.torch.AdamW([other], lr=0.1)
    again.load_state_dict(state)
    assert again.state[other]["exp_avg"].dtype is torch.float32
    for _ in range(2):
        other.grad = param.grad = torch.randn(40).to(dtype)
        opt.step()
        again.step()
    assert torch.equal(param, other)
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(opt.state[param][key], again.state[other][key])


def test_states_of_older_versions() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.1, amsgrad=True)
    pair.step()
    state = copy.deepcopy(pair.ours.state_dict())
    for own in state["state"].values():
        own["step"] = int(own["step"])
        del own["max_exp_avg_sq"]
    for key in ("maximize", "foreach", "capturable", "differentiable", "fused"):
        del state["param_groups"][0][key]
    state["param_groups"][0].pop("decoupled_weight_decay", None)
    pair.ours.load_state_dict(state)
    for own in pair.theirs.state.values():
        own["max_exp_avg_sq"].zero_()
    pair.step()
    pair.check()
    # a group that has lost its keys since
    for key in ("maximize", "amsgrad", "capturable", "fused"):
        pair.ours.param_groups[0].pop(key)
    pair.ours.step()


def test_misfits_are_refused_and_nothing_changes() -> None:
    pair = Pair("AdamW", [torch.randn(3), torch.randn(2, 2)], lr=0.1)
    for _ in range(2):
        pair.step()
    good = copy.deepcopy(pair.ours.state_dict())
    others = [torch.nn.Parameter(p.detach().clone()) for p in pair.params[1]]
    sgd = torch.optim.SGD(others, lr=0.1, momentum=0.9)

    def wrong(change: Any) -> Any:
        state = copy.deepcopy(good)
        change(state)
        return state

    cases: list[tuple[Any, type[Exception], str]] = [
        (wrong(lambda s: s["param_groups"].pop()), ValueError, "parameter group"),
        (wrong(lambda s: s["param_groups"][0]["params"].pop()), ValueError, "size of"),
        (wrong(lambda s: s["param_groups"][0].pop("betas")), ValueError, "no 'betas'"),
        (sgd.state_dict(), ValueError, "no 'betas'"),
        (
            wrong(lambda s: s["state"][1].update(exp_avg=torch.zeros(5))),
            ValueError,
            r"exp_avg of parameter .*\[1\].*shape \(5,\)",
        ),
        (
            wrong(lambda s: s["state"][1].update(exp_avg_sq=torch.zeros(4))),
            ValueError,
            r"exp_avg_sq of parameter .*\[1\].*shape \(4,\)",
        ),
        (wrong(lambda s: s["state"][0].pop("exp_avg_sq")), ValueError, "has no exp_avg_sq"),
        (wrong(lambda s: s["state"][0].update(step="ten")), ValueError, "number of steps"),
        (
            wrong(lambda s: s["state"][0].update(step=torch.tensor(torch.inf))),
            ValueError,
            "number of steps",
        ),
        (wrong(lambda s: s["state"][0].update(exp_avg="text")), TypeError, "must be a tensor"),
        (wrong(lambda s: s["state"].update({1: [1.0]})), TypeError, "no dict"),
    ]
    before = snapshot(pair.ours)
    for state, error, message in cases:
        with pytest.raises(error, match=message):
            pair.ours.load_state_dict(state)
        assert same(snapshot(pair.ours), before), message
    pair.step()
    pair.check()


def test_wide_counts_stay_wide() -> None:
    pair = Pair("AdamW", [torch.randn(3)], lr=0.1)
    pair.step()
    # the next number is none of float32's
    t = 2.0**24 + 1
    for opt, params in pair.both:
        opt.state[params[0]]["step"] = torch.tensor(t, dtype=torch.float64)
    for opt, _ in pair.both:
        opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    pair.step()
    assert [opt.state[params[0]]["step"].item() for opt, params in pair.both] == [t + 1, t + 1]


def test_other_values_of_a_state_are_kept() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    opt = fastadam.torch.Adam([param], lr=0.1)
    param.grad = torch.ones(2)
    opt.step()
    opt.state[param]["note"] = "a text"
    opt.state[param]["extra"] = torch.ones(3, dtype=torch.int64)
    other = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    other.load_state_dict(opt.state_dict())
    state = next(iter(other.state.values()))
    assert state["note"] == "a text"
    assert torch.equal(state["extra"], torch.ones(3, dtype=torch.int64))
    assert state["extra"] is not opt.state[param]["extra"]


def test_hooks_of_state_dicts() -> None:
    pair = Pair("Adam", [torch.randn(3)], lr=0.1)
    pair.step()
    opt = pair.ours
    calls: list[str] = []
    opt.register_state_dict_post_hook(lambda _, state: {**state, "more": 1})
    opt.register_load_state_dict_pre_hook(
        lambda _, state: {k: v for k, v in state.items() if k != "more"}
    )

    def after(loaded: Any) -> None:
        calls.append(f"{int(loaded.state[pair.params[0][0]]['step'])}")

    opt.register_load_state_dict_post_hook(after)
    state = copy.deepcopy(opt.state_dict())
    assert state["more"] == 1
    pair.step()
    opt.load_state_dict(state)
    assert calls == ["1"]
    opt.load_state_dict(state)
    assert calls == ["1", "1"]


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies(how: str) -> None:
    param = torch.nn.Parameter(torch.randn(5))
    opt = fastadam.torch.Adam([param], lr=0.1, max_grad_norm=0.5, max_grad_value=2.0)
    param.grad = torch.randn(5)
    opt.step()
    copied = copy.deepcopy(opt) if how == "deepcopy" else pickle.loads(pickle.dumps(opt))
    assert (copied.max_grad_norm, copied.max_grad_value) == (0.5, 2.0)
    other = copied.param_groups[0]["params"][0]
    assert other is not param
    for _ in range(2):
        param.grad = other.grad = torch.randn(5)
        opt.step()
        copied.step()
    assert torch.equal(param, other)
    assert int(copied.state[other]["step"]) == 3
    # the original is left alone
    copied.step()
    assert not torch.equal(param, other)


def test_edited_states() -> None:
    pair = Pair("AdamW", values(torch.float32), lr=0.1)
    pair.step()
    for opt, params in pair.both:
        opt.state[params[0]]["exp_avg"] = torch.full_like(params[0], 0.3)
        opt.state[params[1]]["exp_avg_sq"].mul_(2.0)
        opt.state[params[2]]["step"] += 5
        del opt.state[params[3]]
    pair.step()
    pair.check()
    for opt, params in pair.both:
        opt.state[params[0]]["exp_avg"].data = torch.full_like(params[0], -0.3)
        opt.state[params[1]]["step"] = torch.tensor(9.0)
        opt.state[params[2]]["mine"] = 1
    pair.step()
    for opt, params in pair.both:
        del opt.state[params[2]]["mine"]
    pair.check()


def test_states_of_another_layout_and_dtype() -> None:
    pair = Pair("AdamW", [torch.randn(2, 3, 4, 5)], lr=0.1)
    pair.step()
    state = pair.ours.state[pair.params[0][0]]
    state["exp_avg"] = state["exp_avg"].to(memory_format=torch.channels_last)
    state["exp_avg_sq"] = state["exp_avg_sq"].double()
    state["step"] = state["step"].to(torch.int64)
    pair.step()
    pair.check()


def test_memory_that_is_replaced_or_shared() -> None:
    pair = Pair("Adam", values(torch.float32), lr=0.1)
    pair.step()
    for opt, params in pair.both:
        params[0].data = params[0].data.clone() * 2
        params[1].share_memory_()
        for value in opt.state[params[1]].values():
            value.share_memory_()
        with torch.no_grad():
            params[2].set_(params[2].clone())
    for _ in range(2):
        pair.step()
        pair.check()
    if hasattr(torch.utils, "swap_tensors"):
        start = torch.randn(7)
        for params in pair.params:
            grad = params[1].grad
            params[1].grad = None
            torch.utils.swap_tensors(params[1], torch.nn.Parameter(start.clone()))
            params[1].grad = grad
        pair.step()
        pair.check()


def test_parameters_that_grow_are_refused() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    opt = fastadam.torch.Adam([param], lr=0.1)
    param.grad = torch.ones(2)
    opt.step()
    param.grad = None
    param.data = torch.ones(3)
    param.grad = torch.ones(3)
    before = snapshot(opt)
    with pytest.raises(ValueError, match=r"exp_avg of .*shape \(2,\), and the parameter \(3,\)"):
        opt.step()
    assert same(snapshot(opt), before)
