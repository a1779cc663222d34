"""`fastadam.save` and `fastadam.load` with the optimizers on PyTorch's tensors."""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_pairs import named, same, snapshot, values
from tracing import counted, interrupted

import fastadam
import fastadam.torch
from fastadam import CheckpointError
from fastadam.__main__ import main

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
from sealing import keys_of, sealed

SUFFIXES = [".npz", ".h5"]
MASTERS = "fastadam/settings/master_weights"


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == ".h5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    return tmp_path / f"run{request.param}"


def half() -> torch.dtype:
    """bfloat16, where NumPy can have it."""
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    return torch.bfloat16


def layouts() -> list[torch.Tensor]:
    """One in each layout: dense, turned, with gaps, channels last, empty."""
    return [
        *values(torch.float32),
        torch.randn(4, 3).t(),
        torch.randn(4, 6)[:, ::2],
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(0, 3),
    ]


def tensor_lr() -> dict[str, Any]:
    return {"lr": torch.tensor(0.03, dtype=torch.float64)}


# Class, parameters, and options that are not the defaults.
CASES: dict[str, tuple[str, Callable[[], list[torch.Tensor]], Callable[[], dict[str, Any]]]] = {
    "Adam": (
        "Adam",
        layouts,
        lambda: {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1},
    ),
    "AdamW with amsgrad": (
        "AdamW",
        layouts,
        lambda: {"lr": 0.02, "amsgrad": True, "maximize": True},
    ),
    "a tensor as lr": ("AdamW", layouts, tensor_lr),
    "AdaBound": ("AdaBound", layouts, lambda: {"lr": 0.02, "final_lr": 0.3, "gamma": 0.02}),
    "AMSBound": ("AMSBound", layouts, lambda: {"lr": 0.02, "decoupled_weight_decay": True}),
    "clipped": ("AdamW", layouts, lambda: {"max_grad_norm": 0.5, "max_grad_value": 0.4}),
    "float64 and float16": (
        "AdamW",
        lambda: values(torch.float64, torch.float16),
        lambda: {"lr": 0.02, "weight_decay": 0.3},
    ),
    "bfloat16": ("AdamW", lambda: values(half()), lambda: {"lr": 0.02, "amsgrad": True}),
    "masters": (
        "AdamW",
        lambda: values(half(), torch.float16, torch.float32),
        lambda: {"lr": 1e-3, "master_weights": True},
    ),
    "complex": ("Adam", lambda: values(torch.complex64), lambda: {"lr": 0.02}),
}


def made(case: str, named: bool, seed: int, groups: int = 2) -> Any:
    """An optimizer with two groups."""
    kind, tensors, options = CASES[case]
    torch.manual_seed(seed)
    params = [torch.nn.Parameter(t) for t in tensors()]
    # the layout is the tensor's
    for p, t in zip(params, tensors(), strict=True):
        p.data = t
    entries: list[Any] = [(f"layer.{i}", p) for i, p in enumerate(params)] if named else params
    parts = [entries[:2], entries[2:]] if groups == 2 else [entries]
    lists: list[Any] = [{"params": part} for part in parts]
    if groups == 2:
        lists[1]["betas"] = (0.7, 0.9)
    try:
        return getattr(fastadam.torch, kind)(lists, **options())
    except TypeError:
        if not named:
            raise
        pytest.skip("this PyTorch takes no named parameters")


def params_of(opt: Any) -> list[torch.Tensor]:
    return [p for group in opt.param_groups for p in group["params"]]


def step(opt: Any, seed: int) -> None:
    torch.manual_seed(seed)
    for p in params_of(opt)[1:]:
        # the first never has a gradient, and so no state
        p.grad = torch.randn_like(p)
    opt.step()


def everything(opt: Any) -> list[Any]:
    """All that a file keeps, gradients left out."""
    groups = [{k: v for k, v in sorted(g.items()) if k != "params"} for g in opt.param_groups]
    kept = copy.deepcopy(groups)
    bounds = [opt.max_grad_norm, opt.max_grad_value, opt.master_weights]
    states = [dict(opt.state.get(p) or {}) for p in params_of(opt)]
    tensors = [p.detach().clone() for p in params_of(opt)]
    return [kept, bounds, copy.deepcopy(states), tensors]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_bit_for_bit(path: Path, case: str, named: bool) -> None:
    opt = made(case, named, seed=1)
    for i in range(3):
        step(opt, i)
    fastadam.save(path, opt)
    other = made(case, named, seed=2)
    # it has a state where the other has none
    params_of(other)[0].grad = torch.ones_like(params_of(other)[0])
    step(other, 9)
    assert other.state[params_of(other)[0]]
    for group in other.param_groups:
        group["eps"], group["betas"] = 0.5, (0.1, 0.2)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(7.0)
        else:
            group["lr"] = 7.0
    other.max_grad_norm = 3.0
    before = [(p, p.data_ptr(), p._version) for p in params_of(other)]
    report = fastadam.load(path, other)
    assert report.verified
    assert (report.left, report.missing, report.converted) == ((), (), ())
    assert set(report.read) == set(keys_of(path))
    assert report.versions["class"] == CASES[case][0]
    assert report.versions["torch"] == str(torch.__version__)
    assert same(everything(opt), everything(other))
    assert params_of(other)[0] not in other.state
    params_of(other)[0].grad = None
    for (p, address, version), q in zip(before, params_of(other), strict=True):
        assert p is q
        assert p.data_ptr() == address
        assert p._version > version
    for i in range(2):
        step(opt, 20 + i)
        step(other, 20 + i)
        assert same(everything(opt), everything(other))


def test_a_backward_pass_over_what_was_loaded_is_refused(path: Path) -> None:
    opt = made("Adam", True, seed=1)
    fastadam.save(path, opt)
    p = params_of(opt)[0]
    loss = (p**3).sum()
    fastadam.load(path, opt)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_in_groups_stay(path: Path) -> None:
    opt = made("a tensor as lr", True, seed=1)
    fastadam.save(path, opt)
    other = made("a tensor as lr", True, seed=2)
    lr = other.param_groups[0]["lr"]
    lr.fill_(0.5)
    version = lr._version
    fastadam.load(path, other)
    assert other.param_groups[0]["lr"] is lr
    assert other.param_groups[1]["lr"] is lr
    assert lr.item() == 0.03
    assert lr._version > version
    # a number where a tensor was, and the other way round where it can hold it
    plain = made("AdamW with amsgrad", True, seed=3)
    fastadam.load(path, plain, ignore_names=lambda key: key.endswith(("/amsgrad", "/maximize")))
    assert [type(group["lr"]) for group in plain.param_groups] == [float, float]
    narrow = made("a tensor as lr", True, seed=2)
    narrow.param_groups[0]["lr"] = torch.tensor(0.5)
    before = everything(narrow)
    with pytest.raises(CheckpointError, match=r"group/0/lr' is 0\.03 .* torch\.float32 .* cannot"):
        fastadam.load(path, narrow)
    assert same(everything(narrow), before)
    plain.param_groups[0]["lr"] = 0.125
    fastadam.save(path, plain)
    two = made("a tensor as lr", True, seed=2)
    with pytest.raises(CheckpointError, match="for another number, too"):
        fastadam.load(path, two, strict=False, ignore_names=lambda key: "amsgrad" in key)


def test_schedulers_and_values_of_ones_own(path: Path) -> None:
    opt = made("Adam", True, seed=1)
    opt.param_groups[0].update(note="slow", bounds=[1, 2], flag=True, nothing=None)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.5, total_steps=20)
    p = params_of(opt)[1]
    for i in range(3):
        step(opt, i)
        scheduler.step()
    opt.state[p]["seen"] = torch.arange(3)
    opt.state[p]["why"] = "a text"
    fastadam.save(path, opt)
    other = made("Adam", True, seed=2)
    other.param_groups[0]["bounds"] = [5, 6]
    fastadam.load(path, other)
    assert same(everything(opt), everything(other))
    assert other.param_groups[0]["bounds"] == [1, 2]
    assert other.param_groups[1]["initial_lr"] == opt.param_groups[1]["initial_lr"]


def misfit(path: Path, other: Any, message: str, **how: Any) -> None:
    """Load what does not fit: refused by name, and nothing has changed."""
    before = snapshot(other), everything(other)
    with pytest.raises(CheckpointError, match=message):
        fastadam.load(path, other, **how)
    assert same((snapshot(other), everything(other)), before)


def test_misfits_are_refused_and_nothing_changes(path: Path) -> None:
    opt = made("Adam", True, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    misfit(path, made("Adam", False, seed=2), "made with named_parameters")
    misfit(
        path, made("Adam", True, seed=2, groups=1), "with 2 groups of parameters, and here are 1"
    )
    misfit(path, made("AdaBound", True, seed=2), "saved with Adam or AdamW, and this is AdaBound")
    misfit(path, made("AdamW with amsgrad", True, seed=2), "amsgrad=False, and this AdamW has")
    misfit(
        path, made("a tensor as lr", True, seed=2), "decoupled_weight_decay=False, and this AdamW"
    )
    # another shape, another kind of number, fewer, more, and in another group
    shape, kind, fewer, moved = (made("Adam", True, seed=2) for _ in range(4))
    params_of(shape)[1].data = torch.randn(8)
    misfit(path, shape, r"'target/layer\.1' has shape \(7,\) in the file, but shape \(8,\)")
    misfit(path, shape, r"optimizer/layer\.1/.* has shape \(7,\)", parameters=False)
    fewer.param_groups[1]["params"].pop()
    fewer.param_groups[1]["param_names"].pop()
    misfit(path, fewer, r"other parameters: it has 'layer\.7'; `rename`")
    fewer.param_groups[1]["param_names"][0] = "head"
    misfit(path, fewer, r"it lacks 'head', and has 'layer\.2', 'layer\.7'")
    for key in ("params", "param_names"):
        moved.param_groups[0][key].append(moved.param_groups[1][key].pop(0))
    misfit(path, moved, r"parameter 'layer\.2' is in group 1 in the file, and in group 0 here")
    complexes = made("complex", True, seed=2)
    fastadam.save(path, complexes)
    kind = made("Adam", True, seed=2)
    for p, q in zip(params_of(complexes), params_of(kind), strict=False):
        q.data = torch.zeros(p.shape)
    for key in ("params", "param_names"):
        del kind.param_groups[1][key][2:]
    misfit(path, kind, "dtype complex64 in the file, which cannot be cast to float32")


def test_each_takes_its_own_files(path: Path) -> None:
    rules = fastadam.Adam().setup({"w": np.ones(3)})
    rules.apply_gradients({"w": np.ones(3)})
    opt = fastadam.torch.Adam([torch.nn.Parameter(torch.ones(3))])
    fastadam.save(path, rules)
    misfit(path, opt, "a target and rules, such as fastadam.Adam")
    save = (
        fastadam.serializers.save_npz if path.suffix == ".npz" else fastadam.serializers.save_hdf5
    )
    save(path, rules)
    misfit(path, opt, "a target and rules", parameters=False)
    fastadam.save(path, opt)
    before = fastadam.snapshot(rules)
    with pytest.raises(CheckpointError, match=r"in groups, such as fastadam\.torch's"):
        fastadam.load(path, rules)
    assert not fastadam.compare(rules, before)


def test_options(path: Path) -> None:
    opt = made("clipped", True, seed=1)
    for i in range(2):
        step(opt, i)
    done: list[tuple[int, int]] = []
    fastadam.save(path, opt, compression=True, progress=lambda *n: done.append(n))
    assert done[-1][0] == done[-1][1] > 1000

    def fresh() -> Any:
        other = made("clipped", True, seed=2)
        other.param_groups[0]["lr"] = 5.0
        step(other, 3)
        other.max_grad_norm = 9.0
        return other

    other = fresh()
    before = everything(other)
    report = fastadam.load(path, other, parameters=False)
    assert all(key.startswith("target/") for key in report.left)
    assert same(everything(other)[3], before[3])
    assert same(everything(other)[:3], everything(opt)[:3])
    other = fresh()
    fastadam.load(path, other, hyperparam=False)
    assert same(everything(other)[:2], before[:2])
    assert same(everything(other)[2:], everything(opt)[2:])
    other = fresh()
    left = ["fastadam/group/0/lr", "optimizer/layer.1/step"]
    count = other.state[params_of(other)[1]]["step"]
    report = fastadam.load(path, other, ignore_names=left)
    assert sorted(report.ignored) == left
    assert other.param_groups[0]["lr"] == 5.0
    state = other.state[params_of(other)[1]]
    assert state["step"] is count
    assert int(count) == 1
    assert torch.equal(state["exp_avg"], opt.state[params_of(opt)[1]]["exp_avg"])
    # and there is no state where there was none of what is left
    stateless = made("clipped", True, seed=2)
    misfit(path, stateless, r"'layer\.1' has no step", ignore_names=left)
    renamed = made("clipped", True, seed=2)
    renamed.param_groups[0]["param_names"][1] = "head"
    misfit(path, renamed, "lacks 'head'")
    report = fastadam.load(path, renamed, strict=False)
    assert any(key.startswith("optimizer/layer.1/") for key in report.left)
    assert not renamed.state.get(params_of(renamed)[1])
    fastadam.load(path, renamed, rename={"layer.1": "head"})
    renamed.param_groups[0]["param_names"][1] = "layer.1"
    assert same(everything(renamed), everything(opt))
    fastadam.save(path, opt, parameters=False)
    assert not [key for key in keys_of(path) if key.startswith("target/")]
    misfit(path, fresh(), "parameters=False")
    fastadam.load(path, fresh(), parameters=False)


def test_amsgrad_is_converted(path: Path) -> None:
    plain, amsgrad = ({"lr": 0.1, "amsgrad": flag} for flag in (False, True))
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    adam, ams = fastadam.torch.Adam(params[:1], **plain), fastadam.torch.Adam(params[1:], **amsgrad)
    for opt, p in ((adam, params[0]), (ams, params[1])):
        for scale in (3.0, 1.0):
            p.grad = torch.full((3,), scale)
            opt.step()
    fastadam.save(path, adam)
    misfit(path, ams, "convert_amsgrad=True")
    report = fastadam.load(path, ams, convert_amsgrad=True)
    assert report.converted == ("optimizer/0/max_exp_avg_sq",)
    state = ams.state[params[1]]
    assert torch.equal(state["max_exp_avg_sq"], adam.state[params[0]]["exp_avg_sq"])
    assert state["max_exp_avg_sq"] is not state["exp_avg_sq"]
    assert ams.param_groups[0]["amsgrad"] is True
    fastadam.save(path, ams)
    misfit(path, adam, "convert_amsgrad=True")
    fastadam.load(path, adam, convert_amsgrad=True)
    assert "max_exp_avg_sq" not in adam.state[params[0]]
    for opt, p in ((adam, params[0]), (ams, params[1])):
        p.grad = torch.ones(3)
        opt.step()


def test_masters(path: Path) -> None:
    opt = made("masters", True, seed=1)
    for i in range(3):
        step(opt, i)
    fastadam.save(path, opt)
    other = made("masters", True, seed=2)
    fastadam.load(path, other)
    assert same(everything(opt), everything(other))
    # whether there are masters is what the optimizer was made with
    for options in ({}, {"hyperparam": False}, {"ignore_names": MASTERS}):
        without = made("masters", True, seed=2)
        without.master_weights = False
        misfit(path, without, "master", **options)
    misfit(path, without, r"with master_weights=True, and this AdamW has .*make the optimizer with")
    fastadam.load(path, without, strict=False)
    assert without.master_weights is False
    assert "master_param" not in without.state[params_of(without)[1]]
    # wider parameters have none
    wide = made("masters", True, seed=2)
    for p in params_of(wide):
        p.data = p.data.float()
    misfit(path, wide, r"parameter 'layer\.1' has a float32 master in the file")
    fastadam.load(path, wide, strict=False)
    assert "master_param" not in wide.state[params_of(wide)[1]]
    # masters that are switched on after the last step are not there yet
    late = made("masters", True, seed=1)
    late.master_weights = False
    step(late, 1)
    late.master_weights = True
    fastadam.save(path, late)
    fastadam.load(path, other)
    assert "master_param" not in other.state[params_of(other)[1]]
    for each in (late, other):
        step(each, 2)
    assert same(everything(late), everything(other))


@pytest.mark.parametrize("hyperparam", [True, False])
def test_masters_begin_from_the_parameters_in_a_file_without(path: Path, hyperparam: bool) -> None:
    opt = made("masters", True, seed=1)
    opt.master_weights = False
    for i in range(3):
        step(opt, i)
    fastadam.save(path, opt)
    other = made("masters", True, seed=2)
    step(other, 1)
    report = fastadam.load(path, other, hyperparam=hyperparam)
    assert other.master_weights is True
    names = [f"layer.{i}" for i, p in enumerate(params_of(opt)) if p.dtype != torch.float32]
    # the first has no state
    assert report.converted == tuple([f"optimizer/{name}/master_param" for name in names[1:]])
    again = fastadam.load(path, other, hyperparam=hyperparam, ignore_names=MASTERS)
    assert again.converted == report.converted
    opt.master_weights = True
    for each in (opt, other):
        step(each, 7)
    assert "master_param" in other.state[params_of(other)[1]]
    assert same(everything(opt), everything(other))
    # one without float16 does not care
    for here, there in ((True, False), (False, True)):
        opt, other = (made("float64 and float16", True, seed) for seed in (1, 2))
        for each, masters in ((opt, there), (other, here)):
            each.master_weights = masters
            for p in params_of(each):
                p.data = p.data.double()
        step(opt, 1)
        fastadam.save(path, opt)
        fastadam.load(path, other)
        assert other.master_weights is here


def test_what_cannot_be_saved_leaves_the_old_file(path: Path) -> None:
    opt = made("Adam", True, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    old = path.read_bytes()
    p = params_of(opt)[1]

    def refuses(message: str, error: type[Exception] = TypeError) -> None:
        with pytest.raises(error, match=message):
            fastadam.save(path, opt)
        assert path.read_bytes() == old

    opt.param_groups[1]["mine"] = object()
    refuses("fastadam/group/1/mine': it is of type object")
    opt.param_groups[1]["mine"] = ("a", 1)
    refuses("of tuples and lists only those of numbers")
    opt.param_groups[1]["mine"] = torch.ones(2)
    refuses("of tensors in groups only those of one number")
    del opt.param_groups[1]["mine"]
    opt.state[p]["mine"] = {}
    refuses(r"optimizer/layer\.1/mine': it is a dict")
    del opt.state[p]["mine"]
    opt.state[p]["step"] = -1
    refuses("number of steps", ValueError)
    opt.state[p]["step"] = 1
    names = opt.param_groups[1]["param_names"]
    names[0] = "layer.0"
    refuses("two parameters of this Adam are called 'layer.0'", ValueError)
    names[0] = "layer.2"
    opt.param_groups[0]["params"][1] = torch.nn.Parameter(torch.empty(7, device="meta"))
    refuses(r"parameter 'layer\.1': a tensor of .*on meta")
    with pytest.raises(TypeError, match=r"parameter 'layer\.1': a tensor of .*on meta"):
        fastadam.load(path, opt)
    with pytest.raises(TypeError, match="path comes first"):
        fastadam.save(opt, path)
    with pytest.raises(TypeError, match=r"optimizer of fastadam's .* not torch\.optim\."):
        fastadam.save(path, torch.optim.Adam([torch.ones(2)]))


@pytest.mark.slow
def test_each_entry_that_is_left_out_is_missed(path: Path) -> None:
    """What every save writes, in a file whose digests are right."""
    opt = made("masters", True, seed=1)
    opt.param_groups[0]["amsgrad"] = True
    step(opt, 1)
    fastadam.save(path, opt)
    keys = keys_of(path)
    # which choose nothing
    free = ("foreach", "fused", "capturable", "differentiable")
    for key in keys:
        if key.endswith(free):
            continue
        fastadam.save(path, opt)
        sealed(path, {key: ...})
        other = made("masters", True, seed=2)
        other.param_groups[0]["amsgrad"] = True
        name = key.split("/")[-2] if key.endswith("/group") else key
        misfit(path, other, re.escape(name))


WRONG: dict[str, tuple[str, Any, str]] = {
    "a negative eps": ("fastadam/group/0/eps", -1.0, "eps"),
    "text for a number": ("fastadam/group/1/lr", "fast", "lr must be a number"),
    "one beta": ("fastadam/group/1/betas", np.array([0.5]), "two numbers"),
    "betas of two axes": ("fastadam/group/1/betas", np.ones((2, 2)), "shape \\(2, 2\\)"),
    "what cannot be stepped": ("fastadam/group/1/capturable", True, "no capturable=True"),
    "parameters": ("fastadam/group/1/params", 3, "no place for: 'fastadam/group/1/params'"),
    "a third group": ("fastadam/group/2/lr", 0.5, "with 3 groups"),
    "another group": ("fastadam/rule/layer.1/group", 1, "in group 1 in the file"),
    "a bound below 0": ("fastadam/hyperparam/max_grad_norm", -2.0, "above 0"),
    "a bound of text": ("fastadam/hyperparam/max_grad_value", "x", "must be a number"),
    "no truth value": ("fastadam/settings/master_weights", 2, "no truth value"),
    "a count below 0": ("optimizer/layer.1/step", -1.0, "number of steps"),
    "another shape": ("optimizer/layer.1/exp_avg", np.ones(3), "shape \\(3,\\)"),
    "a moment that is too large": ("optimizer/layer.1/exp_avg", np.full(7, 1e300), "beyond"),
    "text for a moment": ("optimizer/layer.1/exp_avg", "x", "must be a tensor"),
    "dates": ("optimizer/layer.1/seen", np.array(["2020"], "M8[Y]"), "dtype"),
    "a parameter that is too large": ("target/layer.1", np.full(7, 1e300), "beyond"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_values_in_a_file_whose_digests_are_right(path: Path, what: str) -> None:
    key, value, message = WRONG[what]
    opt = made("Adam", True, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    sealed(path, {key: value})
    misfit(path, made("Adam", True, seed=2), message)


def test_damage_is_noticed(path: Path) -> None:
    opt = made("Adam", True, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    sealed(path, {"optimizer/layer.1/exp_avg": np.zeros(7, np.float32)}, listed=False)
    misfit(path, made("Adam", True, seed=2), "damaged")


# a file that is closed by its finalizer
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_at_any_line_of_a_load(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "run.npz"
    opt = made("clipped", True, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    after = everything(opt)
    other = made("clipped", True, seed=2)
    step(other, 2)
    before = everything(other)
    lines = counted(lambda: fastadam.load(path, copy.deepcopy(other)))
    found = {"before": 0, "after": 0}
    # every line around the commit, and some of those before
    for n in (*range(0, lines - 40, 97), *range(lines - 40, lines)):
        again = copy.deepcopy(other)
        interrupted(n, lambda: fastadam.load(path, again), error)  # noqa: B023 - called at once
        now = everything(again)
        assert same(now, before) or same(now, after), f"mixed at line {n}"
        found["after" if same(now, after) else "before"] += 1
    assert all(found.values()), found


def test_inspect_lists_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = made("masters", True, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    assert main(["inspect", str(path)]) == 0
    listed = capsys.readouterr().out
    for line in (
        r"fastadam/group/1/betas +float64 +2 +16 +\[0\.7, 0\.9\]",
        r"optimizer/layer\.1/exp_avg +float32 +7 +28",
        r"target/layer\.1 +bfloat16 +7 +14",
        r"saved with .*torch .*class AdamW",
        "verified: everything is as it was saved",
    ):
        assert re.search(line, listed), line


def test_nothing_is_shared(path: Path) -> None:
    """Two loads of one file, and the optimizer that it was saved of, go their own ways."""
    opt = made("AdamW with amsgrad", False, seed=1)
    step(opt, 1)
    fastadam.save(path, opt)
    others = [made("AdamW with amsgrad", False, seed=2) for _ in range(2)]
    for other in others:
        fastadam.load(path, other)
    kept = everything(opt)
    step(others[0], 5)
    assert same(everything(opt), kept)
    assert same(everything(others[1]), kept)


def test_no_warnings(path: Path) -> None:
    opt = made("clipped", True, seed=1)
    step(opt, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastadam.save(path, opt)
        fastadam.load(path, opt)


def test_optimizers_are_compared(path: Path) -> None:
    opt, other = (made("masters", True, seed=1) for _ in range(2))
    for each in (opt, other):
        step(each, 1)
    assert not fastadam.compare(opt, other)
    record = fastadam.snapshot(opt)
    assert repr(record) == "<snapshot of AdamW at t=1: 12 parameters>"
    other.param_groups[1]["lr"] = 0.5
    other.state[params_of(other)[1]]["exp_avg"][2] += 1
    with torch.no_grad():
        params_of(other)[8].view(-1)[1] += 1
    found = [(each.where, each.what) for each in fastadam.compare(opt, other)]
    assert found == [("", "param_groups[1].lr"), ("layer.1", "exp_avg"), ("layer.8", "param")]
    fastadam.save(path, other)
    fastadam.load(path, opt)
    assert not fastadam.compare(opt, other)
    step(opt, 2)
    changed = {each.what for each in fastadam.compare(record, opt)}
    assert {"t", "step", "exp_avg", "exp_avg_sq", "master_param", "param"} <= changed
    one, two = (made("complex", True, seed=1) for _ in range(2))
    assert not fastadam.compare(one, two)
    step(one, 1)
    assert fastadam.compare(one, two)
    plain, rules = made("Adam", True, seed=1), fastadam.Adam().setup(np.ones(3))
    assert fastadam.compare(plain, rules)[0].what == "class"


def test_names_of_a_compiled_model(path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    compiled = named((f"_orig_mod.{name}", p) for name, p in model.named_parameters())
    opt = fastadam.torch.Adam(compiled)
    opt.state["mine"] = {"of": "no parameter"}
    fastadam.save(path, opt)
    assert not [key for key in keys_of(path) if "mine" in key]
    other = torch.nn.Linear(2, 2)
    own = fastadam.torch.Adam(named(other.named_parameters()))
    own.state["mine"] = {"of": "nobody else"}
    misfit(path, own, r"rename=lambda name: name\.replace\('_orig_mod\.', ''\)$")
    whole = {f"_orig_mod.{name}": name for name, _ in other.named_parameters()}
    for rename in (whole, lambda name: name.replace("_orig_mod.", "")):
        torch.nn.init.zeros_(other.weight)
        fastadam.load(path, own, rename=rename)
        assert torch.equal(other.weight, model.weight)
    assert own.state["mine"] == {"of": "nobody else"}
    with pytest.raises(CheckpointError, match="rename: there is no '_orig_mod' in"):
        fastadam.load(path, own, rename={"_orig_mod": "weight"})
    # and the other way round
    fastadam.save(path, own)
    misfit(path, opt, r"rename=lambda name: '_orig_mod\.' \+ name$")
    fastadam.load(path, opt, rename=lambda name: "_orig_mod." + name)


def test_names_of_wrapped_models(path: Path) -> None:
    def made(change: Callable[[str], str]) -> Any:
        # a submodule may have a name that ends as the wrapper's, too
        names = ("submodule.weight", "encoder.weight", "head.bias")
        return fastadam.torch.Adam(
            named((change(name), torch.nn.Parameter(torch.ones(2))) for name in names)
        )

    changes: dict[str, Callable[[str], str]] = {
        "name.replace('_orig_mod.', '')": lambda name: name.replace("encoder", "encoder._orig_mod"),
        "name.removeprefix('module.')": lambda name: "module." + name,
    }
    plain = made(str)
    for line, change in changes.items():
        fastadam.save(path, made(change))
        misfit(path, plain, f"rename=lambda name: {re.escape(line)}$")
        fastadam.load(path, plain, rename=eval(f"lambda name: {line}"))
    fastadam.save(path, plain)
    misfit(path, made(lambda name: "module." + name), r"rename=lambda name: 'module\.' \+ name$")
    # whatever else differs is told as before
    fastadam.save(path, made(lambda name: "module." + name + "s"))
    misfit(path, plain, "`rename` gives them another name")
