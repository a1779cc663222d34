"""Parameters without a gradient: updated with zeros, left alone, or given what state they lack."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import AdaBound, Adam, AdamW, AMSBound, AMSGrad, Link, Parameter, UpdateRule
from fastadam.optimizer_hooks import (
    GradientClipping,
    GradientHardClipping,
    GradientLARS,
    GradientNoise,
    Lasso,
    WeightDecay,
)
from fastadam.serializers import load_npz, save_npz

KINDS = (Adam, AdamW, AMSGrad, AdaBound, AMSBound)
HOOKS = {
    "none": lambda: None,
    "decay": lambda: WeightDecay(0.5),
    "lasso": lambda: Lasso(0.5),
    "clipping": lambda: GradientClipping(0.5),
    "hard clipping": lambda: GradientHardClipping(-0.5, 0.5),
    "noise": lambda: GradientNoise(0.5, lambda xp, shape, dtype, hook, opt: np.ones(shape, dtype)),
    "LARS": lambda: GradientLARS(),
}


class Objects:
    """Parameters of no link."""

    def __init__(self, **params: Any) -> None:
        self.all = params

    def params(self) -> Iterator[Any]:
        return iter(self.all.values())


def targets(dtype: str = "f8") -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Yield all kinds of targets of parameters a, b, c: name, target, path of each."""
    values = {"a": np.ones(3, dtype), "b": np.full((2, 2), 2.0, dtype), "c": np.ones(1, dtype)}
    same = {name: name for name in values}
    yield "dict", copy.deepcopy(values), same
    yield "nested", {"n": copy.deepcopy(values)}, {name: f"n/{name}" for name in values}
    link = Link()
    with link.init_scope():
        for name, value in values.items():
            setattr(link, name, Parameter(value.copy()))
    yield "link", link, same
    objects = Objects(**{name: Parameter(value.copy()) for name, value in values.items()})
    yield "objects", objects, {name: str(i) for i, name in enumerate(values)}


def give(opt: Any, paths: dict[str, str], missing: str, lent: bool) -> None:
    """Make an update; the parameters named in `missing` have no gradient."""
    grads = {
        path: None if name in missing else np.full(opt.parameters[path].shape, 3.0)
        for name, path in paths.items()
    }
    if not lent:
        for path, grad in grads.items():
            param = opt.parameters[path]
            param.grad = None if grad is None else grad.astype(param.dtype)
        opt.update()
    elif isinstance(opt.target, dict) and "n" in opt.target:
        opt.apply_gradients({"n": {path[2:]: grad for path, grad in grads.items()}})
    else:
        opt.apply_gradients(grads)


def of(opt: Any, path: str) -> tuple[Any, ...]:
    """Return what an update may change of a parameter."""
    param = opt.parameters[path]
    rule = param.update_rule
    state = {k: v.tolist() for k, v in (rule.state or {}).items()}
    return param.array.tolist(), rule.t, state, getattr(rule, "initial_alpha", None)


@pytest.mark.parametrize("hook", HOOKS)
def test_skipped_parameters_are_left_alone(hook: str) -> None:
    """The others get the bits of an optimizer that has only them."""
    sequence = ["", "b", "", "ab", "c", "", "", "abc", "a", ""]
    for kind in KINDS:
        for name, target, paths in targets():
            for lent in (False, True):
                opt = kind(alpha=0.1, missing_gradients="skip").setup(copy.deepcopy(target))
                opt.set_hyperparam("*", weight_decay_rate=0.01)
                alone = {}
                for each, path in paths.items():
                    alone[each] = kind(alpha=0.1).setup({"x": opt.parameters[path].array.copy()})
                    alone[each].set_hyperparam("x", weight_decay_rate=0.01)
                if hook != "none":
                    opt.add_hook(HOOKS[hook]())
                if hook not in ("none", "clipping"):
                    for single in alone.values():
                        single.add_hook(HOOKS[hook]())
                for step, missing in enumerate(sequence):
                    if isinstance(target, dict) and len(missing) == 3 and not lent:
                        continue  # refused: nobody has computed gradients
                    before = {each: of(opt, path) for each, path in paths.items()}
                    give(opt, paths, missing, lent)
                    where = f"{kind.__name__} {name} {lent} {step}"
                    present = [each for each in "abc" if each not in missing]
                    assert opt.last_update.applied == tuple(
                        p for p in opt.parameters if p in {paths[e] for e in present}
                    ), where
                    norm = np.sqrt(9.0 * sum(opt.parameters[paths[e]].size for e in present))
                    if hook == "clipping":
                        assert opt.last_update.grad_norm == pytest.approx(norm), where
                    for each, path in paths.items():
                        if each in missing:
                            assert of(opt, path) == before[each], where
                            continue
                        grad = np.full(opt.parameters[path].shape, 3.0)
                        if hook == "clipping":
                            grad *= 0.5 / norm
                        alone[each].apply_gradients({"x": grad})
                        assert of(opt, path) == of(alone[each], "x"), where
    assert opt.t == len(sequence)


def test_hooks_are_not_called_for_what_is_skipped() -> None:
    for name, target, paths in targets():
        opt = Adam(missing_gradients="skip").setup(target)
        seen: list[Any] = []

        def note(rule: Any, param: Any, seen: list[Any] = seen) -> None:
            assert param.grad is not None
            seen.append(param.shape)

        note.call_for_each_param = True  # type: ignore[attr-defined]
        opt.add_hook(note)
        opt.add_hook(note, "after", timing="post")
        opt.parameters[paths["b"]].update_rule.add_hook(note, "of the rule")
        give(opt, paths, "b", True)
        assert sorted(seen) == [(1,), (1,), (3,), (3,)], name
        # a hook that takes a gradient away leaves the parameter alone, too
        opt.add_hook(lambda opt, p=paths["a"]: opt.parameters[p].cleargrad(), "takes")
        before = of(opt, paths["a"])
        give(opt, paths, "", True)
        assert of(opt, paths["a"]) == before, name
        assert of(opt, paths["b"])[1] == 1


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_skipping_with_masters_loss_scales_and_what_is_not_finite(dtype: str) -> None:
    for name, target, paths in targets(dtype):
        opt = AMSGrad(alpha=0.1, missing_gradients="skip").setup(target)
        opt.use_fp32_update()
        opt.loss_scaling(interval=2)
        for missing in ("a", "", "b", ""):
            before = {each: of(opt, path) for each, path in paths.items()}
            give(opt, paths, missing, False)
            for each in missing:
                assert of(opt, paths[each]) == before[each], name
        assert opt.parameters[paths["b"]].update_rule.t == 3
        assert opt.parameters[paths["c"]].update_rule.t == 4
        assert (opt.t, opt.loss_scale) == (4, 16.0)


def test_users_rules_are_skipped_too() -> None:
    class Descent(UpdateRule):
        def update_core(self, param: Any) -> None:
            param.array -= 0.5 * param.grad

    opt = Adam().setup({"w": np.ones(2), "x": np.ones(2)})
    opt.parameters["w"].update_rule = Descent()
    opt.missing_gradients = "skip"
    opt.apply_gradients({"w": None, "x": np.ones(2)})
    assert opt.target["w"].tolist() == [1.0, 1.0]
    assert opt.parameters["w"].update_rule.t == 0
    opt.apply_gradients({"w": np.ones(2), "x": None})
    assert opt.target["w"].tolist() == [0.5, 0.5]


def test_it_is_a_setting_like_the_others(tmp_path: Path) -> None:
    for kind in KINDS:
        opt = kind(missing_gradients="skip").setup({"w": np.ones(2)})
        assert opt.missing_gradients == "skip"
        assert "missing_gradients='skip'" in repr(opt)
        other = kind().setup({"w": np.ones(2)})
        assert other.missing_gradients == "zeros"
        assert "missing_gradients" not in repr(other)
        assert opt != other
        assert [(d.where, d.what) for d in fastadam.compare(opt, other)] == [
            ("", "missing_gradients")
        ]
        for copied in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
            assert copied.missing_gradients == "skip"
            assert copied == opt
        for suffix in ("npz",):
            path = tmp_path / f"{kind.__name__}.{suffix}"
            fastadam.save(path, opt)
            fastadam.load(path, other)
            assert other == opt
            other.missing_gradients = "zeros"
    with pytest.raises(ValueError, match="'zeros', 'skip', not 'none'"):
        Adam(missing_gradients="none")
    with pytest.raises(ValueError, match="'zeros', 'skip', not None"):
        opt.missing_gradients = None
    assert opt.missing_gradients == "skip"
    with pytest.raises(AttributeError, match="'missing_gradients' is meant"):
        opt.missing_gradient = "skip"


def test_files_without_the_setting_leave_it(tmp_path: Path) -> None:
    opt = Adam().setup({"w": np.ones(2)})
    fastadam.save(tmp_path / "run.npz", opt)
    mine = Adam(missing_gradients="skip").setup({"w": np.ones(2)})
    ignored = ["fastadam/settings/missing_gradients"]
    fastadam.load(tmp_path / "run.npz", mine, ignore_names=ignored)
    assert mine.missing_gradients == "skip"


def unfilled(kind: type[Adam]) -> type[Adam]:
    """Return a class whose missing gradients stay None, as Chainer's users do it."""
    return type(kind.__name__, (kind,), {"reallocate_cleared_grads": lambda self: None})


def both_ways(kind: type[Adam]) -> Iterator[tuple[str, Any]]:
    """Yield an optimizer that updates in batches, and one that updates rules one by one."""
    for way in ("batch", "single"):
        link = Link()
        with link.init_scope():
            link.w, link.b = Parameter(np.ones(2)), Parameter(np.ones(3, np.float16))
        opt = unfilled(kind)(alpha=0.1).setup(link)
        if way == "single":
            for param in opt.parameters.values():
                param.update_rule.add_hook(lambda rule, param: None, "nothing")
        yield way, opt


@pytest.mark.parametrize("kind", KINDS)
def test_a_count_has_its_state_in_both_ways(kind: type[Adam], tmp_path: Path) -> None:
    found = {}
    for way, opt in both_ways(kind):
        opt.apply_gradients({"w": np.ones(2), "b": None})
        rule = opt.parameters["b"].update_rule
        assert rule.t == 1
        names = {"m", "v", "vhat"} if opt.amsgrad else {"m", "v"}
        assert set(rule.state) == names
        assert all(not value.any() for value in rule.state.values())
        assert all(value.dtype == np.float32 for value in rule.state.values())
        found[way] = {path: of(opt, path) for path in opt.parameters}
        save_npz(tmp_path / "state.npz", opt)
        other = dict(both_ways(kind))[way]
        load_npz(tmp_path / "state.npz", other)
        assert {path: of(other, path)[1:] for path in other.parameters} == {
            path: of(opt, path)[1:] for path in opt.parameters
        }
        fastadam.save(tmp_path / "run.npz", opt)
        fastadam.load(tmp_path / "run.npz", other)
        assert {path: of(other, path) for path in other.parameters} == found[way]
    assert found["batch"] == found["single"]


def test_state_that_comes_late_is_there_in_both_ways(tmp_path: Path) -> None:
    """AMSGrad, AdaBound and masters switched on between two updates."""
    found = {}
    for way, opt in both_ways(Adam):
        opt.apply_gradients({"w": np.ones(2), "b": np.ones(3)})
        opt.amsgrad = opt.adabound = True
        opt.use_fp32_update()
        opt.apply_gradients({"w": np.ones(2), "b": None})
        rule = opt.parameters["b"].update_rule
        assert rule.t == 2
        assert set(rule.state) == {"m", "v", "vhat"}
        assert not rule.state["vhat"].any()
        assert rule.initial_alpha == 0.1
        assert rule._fp32_param.array.tolist() == opt.parameters["b"].array.tolist()
        save_npz(tmp_path / "state.npz", opt)
        other = dict(both_ways(AMSBound))[way]
        other.use_fp32_update()
        load_npz(tmp_path / "state.npz", other)
        for each in (opt, other):
            each.alpha = 0.2
            each.parameters["w"].array[...] = 1.0
            each.parameters["b"].array[...] = 1.0
            each.apply_gradients({"w": np.ones(2), "b": np.ones(3)})
        assert of(opt, "b") == of(other, "b")
        assert of(opt, "w") == of(other, "w")
        found[way] = of(opt, "b")
    assert found["batch"] == found["single"]


def test_nothing_at_all_has_a_gradient() -> None:
    for way, opt in both_ways(AMSGrad):
        for t in (1, 2):
            opt.apply_gradients({"w": None, "b": None})
            assert opt.parameters["w"].array.tolist() == [1.0, 1.0], way
            assert {p.update_rule.t for p in opt.parameters.values()} == {t} == {opt.t}
            assert all(
                set(p.update_rule.state) == {"m", "v", "vhat"} for p in opt.parameters.values()
            )
