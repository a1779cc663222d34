"""Optimizer and GradientMethod: counters, hooks, the order of an update, what errors leave."""

from __future__ import annotations

import copy
import pickle
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, GradientMethod, Hyperparameter, Link, Optimizer, Parameter, UpdateRule
from fastadam import optimizer as optimizer_module

ARGUMENTS: dict[str, Any] = {
    "alpha": 0.03,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "eta": 0.7,
    "weight_decay_rate": 0.02,
    "amsgrad": True,
    "adabound": True,
    "final_lr": 0.3,
    "gamma": 0.05,
}


class SGDRule(UpdateRule):
    """What a user would write."""

    def update_core(self, param: Any) -> None:
        param.array -= self.hyperparam.lr * param.grad


class SGD(GradientMethod):
    lr = fastadam.HyperparameterProxy("lr")

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.hyperparam.lr = lr

    def create_update_rule(self) -> UpdateRule:
        return SGDRule(self.hyperparam)


def values(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def make_link(**arrays: Any) -> Link:
    link = Link()
    with link.init_scope():
        for name, array in arrays.items():
            setattr(link, name, Parameter(0 if array is None else array))
    return link


def tree() -> dict[str, Any]:
    return {"a": values(5, 1), "l1": {"b": values(3, 2).astype("f4"), "c": values(4, 3)}}


def gradients(seed: int) -> dict[str, Any]:
    return {
        "a": values(5, 100 + seed),
        "l1": {"b": values(3, 200 + seed).astype("f4"), "c": values(4, 300 + seed)},
    }


def state_of(rule: Any) -> dict[str, bytes] | None:
    return rule.state and {key: array.tobytes() for key, array in rule.state.items()}


def snapshot(opt: Any) -> Any:
    """Everything an update may change, as bytes; a state of zeros is as good as none."""
    found = {}
    for path, param in opt.parameters.items():
        rule = param.update_rule
        state = None
        if rule is not None:
            state = rule.t, {k: a.tobytes() for k, a in (rule.state or {}).items() if a.any()}
        found[path] = (None if param.array is None else param.array.tobytes(), state)
    return opt.t, opt.epoch, found


class TestSetup:
    def test_returns_self_and_sets_the_target(self) -> None:
        opt, target = Adam(), tree()
        assert (opt.target, opt.t, opt.epoch, opt.use_auto_new_epoch) == (None, 0, 0, False)
        assert opt.setup(target) is opt
        assert opt.target is target

    def test_again_drops_counters_hooks_and_state_but_not_hyperparameters(self) -> None:
        target, grads = tree(), gradients(0)
        opt = Adam(**ARGUMENTS).setup(target)
        opt.apply_gradients(grads)
        opt.new_epoch()
        opt.add_hook(lambda opt: pytest.fail("called"), name="hook", timing="post")
        rules = [p.update_rule for p in opt.parameters.values()]
        opt.set_hyperparam("a", alpha=7)
        opt.alpha = 0.04
        opt.setup(target)
        assert (opt.t, opt.epoch, opt.alpha, opt.beta1) == (0, 0, 0.04, 0.8)
        new = [p.update_rule for p in opt.parameters.values()]
        assert not set(map(id, rules)) & set(map(id, new))
        assert [(r.t, r.state, r.hyperparam.alpha) for r in new] == [(0, None, 0.04)] * 3
        other = copy.deepcopy(target)
        opt.apply_gradients(grads)
        Adam(**{**ARGUMENTS, "alpha": 0.04}).setup(other).apply_gradients(grads)
        np.testing.assert_array_equal(target["a"], other["a"])

    def test_uninitialised_parameters_get_rules_too(self) -> None:
        link = make_link(lazy=None, w=np.ones(2))
        opt = Adam().setup(link)
        assert link.lazy.update_rule.hyperparam.parent is opt.hyperparam

    def test_rules_know_their_paths(self) -> None:
        opt = Adam().setup(tree())
        assert [p.update_rule.path for p in opt.parameters.values()] == ["a", "l1/b", "l1/c"]

    @pytest.mark.parametrize(
        "call",
        [
            lambda opt: opt.update(),
            lambda opt: opt.update(lambda: pytest.fail("called")),
            lambda opt: opt.apply_gradients({}),
            lambda opt: opt.add_hook(print),
            lambda opt: opt.remove_hook("print"),
            lambda opt: opt.call_hooks(),
            lambda opt: opt.parameters,
            lambda opt: opt.set_hyperparam("*", alpha=1),
            lambda opt: opt.serialize(fastadam.serializers.DictionarySerializer()),
            lambda opt: opt.reallocate_cleared_grads(),
        ],
    )
    def test_before_setup(self, call: Callable[[Any], Any]) -> None:
        opt = Adam()
        with pytest.raises(RuntimeError, match="setup"):
            call(opt)
        assert opt.t == 0

    def test_is_true_and_has_no_length(self) -> None:
        opt = Adam()
        assert bool(opt) is True
        assert bool(opt.setup(np.zeros(0))) is True
        with pytest.raises(TypeError):
            len(opt)  # type: ignore[arg-type]


def test_names_of_the_module() -> None:
    for name in (
        "GradientMethod",
        "Hyperparameter",
        "HyperparameterProxy",
        "Optimizer",
        "UpdateRule",
    ):
        assert getattr(optimizer_module, name) is getattr(fastadam, name)


@pytest.mark.parametrize(
    ("kind", "call", "words"),
    [
        (Optimizer, lambda opt: opt.update(), "Optimizer must override update"),
        (GradientMethod, lambda opt: opt.create_update_rule(), "create_update_rule"),
        (GradientMethod, lambda opt: opt.setup(np.zeros(1)), "create_update_rule"),
    ],
)
def test_base_classes_say_what_to_override(kind: Any, call: Any, words: str) -> None:
    with pytest.raises(NotImplementedError, match=words):
        call(kind())


def test_optimizer_without_gradients() -> None:
    class Shrink(Optimizer):
        def update(self, lossfun: Any = None, *args: Any, **kwds: Any) -> None:
            self.call_hooks("pre")
            self.t += 1
            for param in self.parameters.values():
                param.array *= 0.5
            self.call_hooks("post")

    w = np.ones(2)
    opt, called = Shrink().setup(w), []
    opt.add_hook(lambda opt: called.append(("post", opt.t)), "b", "post")
    opt.add_hook(lambda opt: called.append(("pre", opt.t)), "a")
    opt.update()
    assert called == [("pre", 0), ("post", 1)]
    np.testing.assert_array_equal(w, [0.5, 0.5])
    assert fastadam.serializers.serialize(opt) == {"t": 1, "epoch": 0}


class TestEpochs:
    def test_counts(self) -> None:
        opt = Adam().setup(np.zeros(1))
        opt.new_epoch()
        opt.new_epoch(False)
        assert opt.epoch == 2

    def test_auto_without_the_flag(self) -> None:
        opt = Adam().setup(np.zeros(1))
        with pytest.raises(RuntimeError, match="use_auto_new_epoch"):
            opt.new_epoch(auto=True)
        assert opt.epoch == 0

    def test_by_hand_with_the_flag(self) -> None:
        opt = Adam().setup(np.zeros(1))
        opt.use_auto_new_epoch = True
        with pytest.raises(RuntimeError, match="use_auto_new_epoch"):
            opt.new_epoch()
        assert opt.epoch == 0
        opt.new_epoch(auto=True)
        assert opt.epoch == 1


class TestUpdate:
    def test_the_loss_function_gets_exactly_its_arguments(self) -> None:
        w = np.ones(2)
        opt = Adam().setup(w)
        seen = []

        def loss(*args: Any, **kwds: Any) -> Any:
            seen.append((args, kwds))
            return "the loss", np.ones(2)

        marker = object()
        assert opt.update(loss, marker, 2, key=marker) == "the loss"
        assert opt.update(loss) == "the loss"
        assert seen == [((marker, 2), {"key": marker}), ((), {})]
        assert opt.t == 2

    def test_loss_is_returned_itself(self) -> None:
        loss = np.array(3.0)
        assert Adam().setup(np.ones(2)).update(lambda: (loss, np.ones(2))) is loss
        assert Adam().setup(np.ones(2)).apply_gradients(np.ones(2)) is None

    @pytest.mark.parametrize(
        "result", [1.0, None, np.float64(2), (1.0,), (1.0, 2.0, 3.0), [1.0, 2]]
    )
    def test_loss_without_gradients(self, result: Any) -> None:
        for target in (tree(), make_link(w=np.ones(2))):
            opt = Adam().setup(target)
            before = snapshot(opt)
            with pytest.raises(TypeError, match="loss, gradients"):
                opt.update(lambda: result)
            assert snapshot(opt) == before

    def test_backward_makes_no_sense_for_arrays(self) -> None:
        loss = types.SimpleNamespace(backward=lambda loss_scale: pytest.fail("called"))
        with pytest.raises(TypeError, match="loss, gradients"):
            Adam().setup(np.ones(2)).update(lambda: loss)

    def test_nothing_to_update_from(self) -> None:
        opt = Adam().setup(tree())
        before = snapshot(opt)
        with pytest.raises(ValueError, match=r"update\(lossfun.*apply_gradients"):
            opt.update()
        assert snapshot(opt) == before

    def test_gradients_set_by_hand(self) -> None:
        target, other = tree(), tree()
        opt, twin = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(other)
        grads = gradients(0)
        opt.parameters["a"].grad = grads["a"]
        opt.parameters["l1/b"].grad = grads["l1"]["b"]
        assert opt.update() is None
        twin.apply_gradients({"a": grads["a"], "l1": {"b": grads["l1"]["b"], "c": None}})
        assert snapshot(opt) == snapshot(twin)
        # they are the user's, and stay
        assert opt.parameters["a"].grad is grads["a"]

    def test_link_with_backward(self) -> None:
        link = make_link(w=values(3), unused=values(2))
        other = make_link(w=values(3), unused=values(2))
        opt, twin = Adam(**ARGUMENTS).setup(link), Adam(**ARGUMENTS).setup(other)
        events: list[Any] = []

        class Loss:
            def backward(self, loss_scale: Any = "not given") -> None:
                events.append(("backward", loss_scale, link.w.grad, link.unused.grad))
                link.w.grad = np.full(3, 0.5)

        def lossfun(x: int) -> Loss:
            events.append(("loss", x, link.w.grad is not None))
            return Loss()

        link.w.grad, link.unused.grad = np.full(3, 9.0), np.full(2, 9.0)
        result = opt.update(lossfun, 7)
        assert isinstance(result, Loss)
        assert events == [("loss", 7, True), ("backward", None, None, None)]
        twin.apply_gradients({"w": np.full(3, 0.5), "unused": None})
        assert snapshot(opt) == snapshot(twin)

    def test_link_with_a_pair(self) -> None:
        link = make_link(w=values(3))
        opt = Adam(**ARGUMENTS).setup(link)
        assert opt.update(lambda: ("loss", {"w": np.ones(3)})) == "loss"
        other = make_link(w=values(3))
        twin = Adam(**ARGUMENTS).setup(other)
        twin.apply_gradients({"w": np.ones(3)})
        assert snapshot(opt) == snapshot(twin)

    def test_arrays_stay_the_same_objects(self) -> None:
        target = tree()
        arrays = target["a"], target["l1"]["b"], target["l1"]["c"]
        opt = Adam(**ARGUMENTS).setup(target)
        opt.apply_gradients(gradients(0))
        states = [dict(p.update_rule.state) for p in opt.parameters.values()]
        opt.apply_gradients(gradients(1))
        for param, array, state in zip(opt.parameters.values(), arrays, states, strict=True):
            assert param.array is array
            assert state.keys() == {"m", "v", "vhat"}
            assert all(param.update_rule.state[key] is state[key] for key in state)

    def test_overridden_reallocate_leaves_unused_parameters_alone(self) -> None:
        class Sparse(Adam):
            def reallocate_cleared_grads(self) -> None:
                pass

        target = tree()
        before = target["a"].copy()
        opt = Sparse(**ARGUMENTS).setup(target)
        opt.apply_gradients({"a": None, "l1": gradients(0)["l1"]})
        np.testing.assert_array_equal(target["a"], before)
        twin = tree()
        Adam(**ARGUMENTS).setup(twin).apply_gradients(gradients(0))
        np.testing.assert_array_equal(target["l1"]["c"], twin["l1"]["c"])

    def test_use_cleargrads_is_deprecated_and_chooses_zeros(self) -> None:
        link = make_link(w=values(3))
        opt = Adam(**ARGUMENTS).setup(link)
        with pytest.warns(DeprecationWarning, match="use_cleargrads"):
            opt.use_cleargrads(False)
        seen: list[Any] = []
        loss = types.SimpleNamespace(backward=lambda loss_scale: seen.append(link.w.grad.copy()))
        link.w.grad = np.full(3, 9.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opt.update(lambda: loss)
        np.testing.assert_array_equal(seen, [np.zeros(3)])


class TestDisabledRules:
    @pytest.mark.parametrize("hooked", [False, True])
    def test_parameter_state_and_count_stay(self, hooked: bool) -> None:
        target, other = tree(), tree()
        opt, twin = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(other)
        if hooked:
            opt.parameters["l1/b"].update_rule.add_hook(lambda rule, param: None, "hook")
        for step in range(6):
            opt.parameters["l1/b"].update_rule.enabled = step not in (2, 3)
            before = snapshot(opt)[2]["l1/b"]
            opt.apply_gradients(gradients(step))
            assert (snapshot(opt)[2]["l1/b"] == before) == (step in (2, 3))
        for step in (0, 1, 4, 5):
            twin.apply_gradients(gradients(step))
        assert opt.t == 6
        assert opt.parameters["l1/b"].update_rule.t == 4
        assert snapshot(opt)[2]["l1/b"] == snapshot(twin)[2]["l1/b"]
        assert snapshot(opt)[2]["a"] != snapshot(twin)[2]["a"]

    def test_link_switches(self) -> None:
        link = make_link(w=values(3), b=values(2))
        opt = Adam().setup(link)
        link.disable_update()
        before = link.w.array.copy()
        opt.apply_gradients({"w": np.ones(3), "b": np.ones(2)})
        np.testing.assert_array_equal(link.w.array, before)
        assert (opt.t, link.w.update_rule.t) == (1, 0)
        link.enable_update()
        opt.apply_gradients({"w": np.ones(3), "b": np.ones(2)})
        assert (opt.t, link.w.update_rule.t) == (2, 1)
        assert not np.array_equal(link.w.array, before)

    def test_all_disabled(self) -> None:
        target = tree()
        opt = Adam().setup(target)
        for param in opt.parameters.values():
            param.update_rule.enabled = False
        before = snapshot(opt)
        opt.apply_gradients(gradients(0))
        assert snapshot(opt) == (1, 0, before[2])


class TestHooks:
    def test_order_timing_and_arguments(self) -> None:
        opt = Adam().setup(tree())
        events: list[Any] = []

        def whole(name: str, **attributes: Any) -> Any:
            def hook(*args: Any) -> None:
                what = ["opt" if arg is opt else arg for arg in args]
                if getattr(hook, "call_for_each_param", False):
                    rule, param = args
                    what = [param.name, param.update_rule is rule, rule.t]
                events.append((name, opt.t, *what))

            hook.__dict__.update(name=name, **attributes)
            return hook

        opt.add_hook(whole("post1", timing="post"))
        opt.add_hook(whole("pre1"))
        opt.add_hook(whole("each", call_for_each_param=True))
        opt.add_hook(whole("forced", timing="post"), timing="pre")
        opt.add_hook(whole("post2"), "other name", "post")
        opt.apply_gradients(gradients(0))
        expected = [
            ("pre1", 0, "opt"),
            ("each", 0, "a", True, 0),
            ("each", 0, "l1/b", True, 0),
            ("each", 0, "l1/c", True, 0),
            ("forced", 0, "opt"),
            ("post1", 1, "opt"),
            ("post2", 1, "opt"),
        ]
        assert events == expected
        events.clear()
        opt.remove_hook("forced")
        opt.remove_hook("other name")
        opt.call_hooks("post")
        opt.call_hooks()
        assert events == [
            ("post1", 1, "opt"),
            ("pre1", 1, "opt"),
            *[("each", 1, path, True, 1) for path in ("a", "l1/b", "l1/c")],
        ]
        with pytest.raises(ValueError, match="'auto'"):
            opt.call_hooks("auto")

    def test_hooks_see_zeros_for_missing_gradients(self) -> None:
        opt = Adam().setup(tree())
        seen: list[Any] = []

        def hook(opt: Any) -> None:
            seen.append([p.grad.tolist() for p in opt.parameters.values()])
            for param in opt.parameters.values():
                param.cleargrad()

        opt.add_hook(hook, "one")
        opt.add_hook(hook, "two")
        opt.apply_gradients({"a": np.ones(5), "l1": None})
        assert seen == [[[1] * 5, [0] * 3, [0] * 4], [[0] * 5, [0] * 3, [0] * 4]]

    def test_post_hooks_see_zeros_for_what_rules_have_cleared(self) -> None:
        opt = Adam().setup(tree())
        for param in opt.parameters.values():
            param.update_rule.add_hook(lambda rule, param: param.cleargrad(), "clear", "post")
        seen: list[Any] = []
        opt.add_hook(lambda opt: seen.append(opt.parameters["a"].grad.tolist()), "see", "post")
        opt.apply_gradients(gradients(0))
        assert seen == [[0] * 5]

    def test_pre_hook_that_replaces_the_gradient(self) -> None:
        target, other = tree(), tree()
        opt, twin = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(other)

        def hook(rule: Any, param: Any) -> None:
            param.grad = np.full_like(param.array, 0.25)

        hook.call_for_each_param = True  # type: ignore[attr-defined]
        opt.add_hook(hook)
        opt.apply_gradients(gradients(0))
        twin.apply_gradients(
            {"a": np.full(5, 0.25), "l1": {"b": np.full(3, 0.25), "c": np.full(4, 0.25)}}
        )
        assert snapshot(opt) == snapshot(twin)

    def test_rule_hooks_run_between_those_of_the_optimizer(self) -> None:
        opt = Adam().setup({"a": np.ones(2), "b": np.ones(2)})
        events: list[Any] = []
        for timing in ("post", "pre"):
            opt.add_hook(lambda opt, t=timing: events.append((t, opt.t)), timing, timing)
            for path, param in opt.parameters.items():
                param.update_rule.add_hook(
                    lambda rule, param, t=timing, p=path: events.append((p, t, rule.t, opt.t)),
                    timing,
                    timing,
                )
        opt.apply_gradients({"a": np.ones(2), "b": np.ones(2)})
        assert events == [
            ("pre", 0),
            ("a", "pre", 1, 1),
            ("a", "post", 1, 1),
            ("b", "pre", 1, 1),
            ("b", "post", 1, 1),
            ("post", 1),
        ]


class TestWhatAnExceptionLeaves:
    """p, m, v and every t as they were; and the next update goes on as if nothing had been."""

    def trained(self) -> Any:
        opt = Adam(**ARGUMENTS).setup(tree())
        opt.apply_gradients(gradients(0))
        opt.apply_gradients(gradients(1))
        return opt

    def goes_on(self, opt: Any) -> None:
        twin = self.trained()
        for one in (opt, twin):
            one.apply_gradients(gradients(2))
        assert snapshot(opt) == snapshot(twin)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_loss_function(self, error: type[BaseException]) -> None:
        opt = self.trained()
        before = snapshot(opt)

        def loss() -> None:
            raise error("in the loss")

        with pytest.raises(error, match="in the loss"):
            opt.update(loss)
        assert snapshot(opt) == before
        self.goes_on(opt)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("each", [False, True])
    def test_pre_hook(self, error: type[BaseException], each: bool) -> None:
        opt = self.trained()
        before = snapshot(opt)

        def fail(*args: Any) -> None:
            raise error("in the hook")

        fail.call_for_each_param = each  # type: ignore[attr-defined]
        opt.add_hook(lambda opt: None, "harmless")
        opt.add_hook(fail)
        with pytest.raises(error, match="in the hook"):
            opt.apply_gradients(gradients(2))
        assert snapshot(opt) == before
        opt.remove_hook("fail")
        self.goes_on(opt)

    def test_backward(self) -> None:
        link = make_link(w=values(3))
        opt = Adam(**ARGUMENTS).setup(link)
        opt.apply_gradients({"w": np.ones(3)})
        before = snapshot(opt)

        def backward(loss_scale: Any) -> None:
            link.w.grad = np.ones(3)
            raise RuntimeError("in backward")

        with pytest.raises(RuntimeError, match="in backward"):
            opt.update(lambda: types.SimpleNamespace(backward=backward))
        assert snapshot(opt) == before

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("at", [("a",), ("a", "l1/b", "l1/c"), ("l1/b",)])
    def test_rule_pre_hook(self, error: type[BaseException], at: tuple[str, ...]) -> None:
        opt = self.trained()
        before = snapshot(opt)

        def fail(rule: Any, param: Any) -> None:
            raise error("in the hook")

        for path in at:
            opt.parameters[path].update_rule.add_hook(fail)
        with pytest.raises(error, match="in the hook"):
            opt.apply_gradients(gradients(2))
        after, twin = snapshot(opt), self.trained()
        twin.apply_gradients(gradients(2))
        done = snapshot(twin)
        # each parameter is wholly before or wholly after its step
        for path in before[2]:
            assert after[2][path] in (before[2][path], done[2][path])
            assert path not in at or after[2][path] == before[2][path]
        if len(at) == 3:
            assert after == before
        else:
            assert after[2]["l1/c"] == done[2]["l1/c"]
            assert after[0] == 3

    def test_rule_pre_hook_of_a_later_parameter(self) -> None:
        opt, twin = self.trained(), self.trained()
        before = snapshot(opt)

        def fail(rule: Any, param: Any) -> None:
            if param.name == "l1/b":
                raise RuntimeError("in the hook")

        for param in opt.parameters.values():
            param.update_rule.add_hook(fail)
        with pytest.raises(RuntimeError, match="in the hook"):
            opt.apply_gradients(gradients(2))
        twin.apply_gradients(gradients(2))
        after, done = snapshot(opt), snapshot(twin)
        assert after[2] == {**before[2], "a": done[2]["a"]}
        assert after[0] == 3  # one parameter has made this step

    @pytest.mark.parametrize("first", [True, False])
    def test_rule_post_hook(self, first: bool) -> None:
        opt, twin = self.trained(), self.trained()
        before = snapshot(opt)
        path = "a" if first else "l1/b"

        def fail(rule: Any, param: Any) -> None:
            if param.name == path:
                raise RuntimeError("in the hook")

        for param in opt.parameters.values():
            param.update_rule.add_hook(fail, timing="post")
        with pytest.raises(RuntimeError, match="in the hook"):
            opt.apply_gradients(gradients(2))
        twin.apply_gradients(gradients(2))
        after, done = snapshot(opt), snapshot(twin)
        stepped = ["a"] if first else ["a", "l1/b"]
        assert after[2] == {**before[2], **{key: done[2][key] for key in stepped}}
        assert after[0] == 3  # a parameter has made this step

    def test_post_hook(self) -> None:
        opt, twin = self.trained(), self.trained()

        def fail(opt: Any) -> None:
            raise RuntimeError("in the hook")

        opt.add_hook(fail, timing="post")
        with pytest.raises(RuntimeError, match="in the hook"):
            opt.apply_gradients(gradients(2))
        twin.apply_gradients(gradients(2))
        assert snapshot(opt) == snapshot(twin)
        assert opt.t == 3

    @pytest.mark.parametrize(
        "hooked", [(), ("l1/c",), ("a",), ("a", "l1/c"), ("a", "l1/b", "l1/c")]
    )
    @pytest.mark.parametrize(
        "fault", ["read-only", "read-only state", "state shape", "eps_mode", "beta1"]
    )
    def test_refused_arrays_and_numbers(self, hooked: tuple[str, ...], fault: str) -> None:
        """The last parameter is refused, in the batch or by itself: the others did not move."""
        opt = self.trained()
        for path in hooked:
            opt.parameters[path].update_rule.add_hook(lambda rule, param: None, "hook")
        param = opt.parameters["l1/c"]
        rule, array = param.update_rule, param.array
        good = rule.state["m"]
        before = snapshot(opt)
        if fault == "read-only":
            array.flags.writeable = False
        elif fault == "read-only state":
            good.flags.writeable = False
        elif fault == "state shape":
            rule.state["m"] = np.zeros(9)
        else:
            # a bag of the user's own, which takes anything
            rule.hyperparam = Hyperparameter(opt.hyperparam)
            setattr(rule.hyperparam, fault, "bad" if fault == "eps_mode" else 1.0)
        with pytest.raises(
            ValueError, match=fault.replace("read-only state", "m is read-only").split()[-1]
        ):
            opt.apply_gradients(gradients(2))
        rule.state["m"] = good
        assert snapshot(opt) == before
        array.flags.writeable = good.flags.writeable = True
        if fault in ("eps_mode", "beta1"):
            delattr(rule.hyperparam, fault)
        self.goes_on(opt)

    @pytest.mark.parametrize("hooked", [False, True])
    def test_no_step_is_counted_if_only_a_lazy_parameter_came_first(self, hooked: bool) -> None:
        opt = Adam(**ARGUMENTS).setup(make_link(a=None, w=values(3)))

        def fail(rule: Any, param: Any) -> None:
            raise RuntimeError("in the hook")

        if hooked:
            opt.target.a.update_rule.add_hook(lambda rule, param: None, "hook")
        opt.target.w.update_rule.add_hook(fail)
        before = snapshot(opt)
        with pytest.raises(RuntimeError, match="in the hook"):
            opt.apply_gradients({"a": None, "w": np.ones(3)})
        assert snapshot(opt) == before

    @pytest.mark.parametrize("kind", ["users rule in a batch", "users rule alone"])
    def test_users_rule_that_fails_at_the_second_parameter(self, kind: str) -> None:
        class Rule(SGDRule):
            def batch_key(self) -> str | None:
                return "mine" if kind == "users rule in a batch" else None

            def update_core(self, param: Any) -> None:
                if param.name == "b":
                    raise RuntimeError("cannot")
                super().update_core(param)

        class Mine(SGD):
            def create_update_rule(self) -> UpdateRule:
                return Rule(self.hyperparam)

        target = {"a": np.ones(2), "b": np.ones(2)}
        opt = Mine(0.5).setup(target)
        with pytest.raises(RuntimeError, match="cannot"):
            opt.apply_gradients({"a": np.ones(2), "b": np.ones(2)})
        np.testing.assert_array_equal(target["a"], [0.5, 0.5])
        np.testing.assert_array_equal(target["b"], [1, 1])
        assert [p.update_rule.t for p in opt.parameters.values()] == [1, 0]
        assert opt.t == 1  # a parameter has made this step


class TestOwnRules:
    def test_sgd_alone(self) -> None:
        target, grads = tree(), gradients(0)
        opt = SGD(lr=0.125).setup(target)
        opt.apply_gradients(grads)
        opt.lr = 0.5
        opt.set_hyperparam("l1/*", lr=0.25)
        opt.apply_gradients(grads)
        fresh = tree()
        np.testing.assert_array_equal(
            target["a"], fresh["a"] - 0.125 * grads["a"] - 0.5 * grads["a"]
        )
        for key in ("b", "c"):
            g = grads["l1"][key]
            np.testing.assert_array_equal(
                target["l1"][key], fresh["l1"][key] - 0.125 * g - 0.25 * g
            )
        assert target["l1"]["b"].dtype == "f4"
        assert opt.t == 2

    def test_sgd_beside_adam(self) -> None:
        target, other = tree(), tree()
        opt, twin = Adam(**ARGUMENTS).setup(target), Adam(**ARGUMENTS).setup(other)
        rule = SGDRule(opt.hyperparam)
        rule.hyperparam.lr = 0.125
        opt.parameters["l1/c"].update_rule = rule
        for step in range(3):
            opt.apply_gradients(gradients(step))
            twin.apply_gradients(gradients(step))
        expected = tree()["l1"]["c"]
        for step in range(3):
            expected = expected - 0.125 * gradients(step)["l1"]["c"]
        np.testing.assert_array_equal(target["l1"]["c"], expected)
        for path in ("a", "l1/b"):
            assert snapshot(opt)[2][path] == snapshot(twin)[2][path]
        assert opt.parameters["l1/c"].update_rule is rule
        assert rule.t == 3

    def test_rule_of_a_foreign_class(self) -> None:
        class Foreign:
            enabled = True
            is_elementwise = True
            t = 0

            def update(self, param: Any) -> None:
                self.t += 1
                param.array += 1

        target = tree()
        opt = Adam(**ARGUMENTS).setup(target)
        opt.parameters["a"].update_rule = Foreign()
        opt.apply_gradients(gradients(0))
        np.testing.assert_array_equal(target["a"], tree()["a"] + 1)
        assert opt.parameters["a"].update_rule.t == 1

    def test_one_rule_for_two_parameters(self) -> None:
        target, other = ({"a": values(3, 1), "b": values(3, 2)} for _ in range(2))
        opt, twin = SGD(0.5).setup(target), SGD(0.5).setup(other)
        opt.parameters["b"].update_rule = rule = opt.parameters["a"].update_rule
        for one in (opt, twin):
            one.apply_gradients({"a": np.ones(3), "b": np.ones(3)})
        np.testing.assert_array_equal(target["a"], other["a"])
        np.testing.assert_array_equal(target["b"], other["b"])
        assert rule.t == 2


@pytest.mark.parametrize("names", ["a", "ab"])
@pytest.mark.parametrize("hooked", [False, True])
def test_state_is_made_once(names: str, hooked: bool) -> None:
    """A rule's own init_state may draw random numbers."""
    made: list[Any] = []

    class Rule(fastadam.AdamRule):
        def init_state(self, param: Any) -> None:
            made.append(param.name)
            super().init_state(param)

    class Mine(Adam):
        def create_update_rule(self) -> fastadam.AdamRule:
            return Rule(self.hyperparam)

    opt = Mine(**ARGUMENTS).setup({name: np.ones(2) for name in names})
    if hooked:
        for param in opt.parameters.values():
            param.update_rule.add_hook(lambda rule, param: None, "hook")
    for _ in range(3):
        opt.apply_gradients({name: np.ones(2) for name in names})
    assert made == list(names)


class TestCopies:
    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    @pytest.mark.parametrize("kind", ["arrays", "link"])
    @pytest.mark.parametrize("steps", [0, 3])
    def test_go_on_with_the_same_bits(self, way: str, kind: str, steps: int) -> None:
        target: Any = tree() if kind == "arrays" else make_link(a=values(5, 1), b=values(3, 2))

        def grads(seed: int) -> Any:
            g = gradients(seed)
            return g if kind == "arrays" else {"a": g["a"], "b": g["l1"]["b"]}

        opt = Adam(**ARGUMENTS).setup(target)
        opt.set_hyperparam("*b", alpha=0.01, weight_decay_rate=0)
        for step in range(steps):
            opt.apply_gradients(grads(step))
        opt.new_epoch()
        other = copy.deepcopy(opt) if way == "deepcopy" else pickle.loads(pickle.dumps(opt))
        assert snapshot(other) == snapshot(opt)
        assert repr(other) == repr(opt)
        assert other.target is not opt.target
        assert list(other.parameters) == list(opt.parameters)
        before = snapshot(opt)
        for one in (other, opt):
            one.alpha = 0.02
            for step in (10, 11):
                one.apply_gradients(grads(step))
            if one is other:
                assert snapshot(opt) == before  # the copy shares nothing
        assert snapshot(other) == snapshot(opt) != before
        for param in other.parameters.values():
            assert param.update_rule.hyperparam.parent is other.hyperparam
        if kind == "arrays":
            assert other.parameters["a"].array is other.target["a"]
        else:
            assert other.parameters["a"] is other.target.a

    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    def test_rebinding_is_noticed_in_the_copy(self, way: str) -> None:
        opt = Adam(**ARGUMENTS).setup(tree())
        opt.apply_gradients(gradients(0))
        other = copy.deepcopy(opt) if way == "deepcopy" else pickle.loads(pickle.dumps(opt))
        new = values(5, 9)
        start = new.copy()
        other.target["a"] = new
        other.apply_gradients(gradients(1))
        assert not np.array_equal(new, start)
        assert other.parameters["a"].update_rule.t == 2

    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    @pytest.mark.parametrize("views", [False, True])
    def test_array_given_twice(self, way: str, views: bool) -> None:
        """Views of one array become arrays of their own in a copy, and no key is left behind."""
        a = values(3)
        opt = Adam(**ARGUMENTS).setup({"x": a[:], "y": a.view()} if views else {"x": a, "y": a})
        opt.apply_gradients({"x": np.ones(3), "y": np.ones(3)})
        other = copy.deepcopy(opt) if way == "deepcopy" else pickle.loads(pickle.dumps(opt))
        before = {key: array.copy() for key, array in other.target.items()}
        other.apply_gradients({"x": np.ones(3), "y": np.ones(3)})
        for key, array in other.target.items():
            assert not np.array_equal(array, before[key])
        if not views:
            assert other.target["x"] is other.target["y"]
            opt.apply_gradients({"x": np.ones(3), "y": np.ones(3)})
            assert snapshot(other) == snapshot(opt)

    @pytest.mark.parametrize("way", ["deepcopy", "pickle"])
    @pytest.mark.parametrize("kind", ["arrays", "link"])
    def test_rules_of_none_and_disabled_rules_stay(self, way: str, kind: str) -> None:
        target: Any = {"a": values(5, 1), "b": values(3, 2), "c": values(2, 3)}
        if kind == "link":
            target = make_link(**target)
        opt = Adam(**ARGUMENTS).setup(target)
        grads = {"a": np.ones(5), "b": np.ones(3), "c": np.ones(2)}
        opt.parameters["a"].update_rule = None
        opt.parameters["b"].update_rule.enabled = False
        opt.apply_gradients(grads)
        other = copy.deepcopy(opt) if way == "deepcopy" else pickle.loads(pickle.dumps(opt))
        for one in (opt, other):
            one.apply_gradients(grads)
            assert one.parameters["a"].update_rule is None
            np.testing.assert_array_equal(one.parameters["a"].array, values(5, 1))
            np.testing.assert_array_equal(one.parameters["b"].array, values(3, 2))
        assert snapshot(other) == snapshot(opt)

    def test_hooks_are_copied(self) -> None:
        calls: list[Any] = []
        opt = Adam().setup(np.ones(2))
        opt.add_hook(calls.append, "hook")
        other = copy.copy(opt)
        assert [name for _, name, _ in other._hooks] == ["hook"]
        twin = copy.deepcopy(opt)
        twin.remove_hook("hook")
        opt.call_hooks()
        assert calls == [opt]

    def test_pickle_before_setup(self) -> None:
        opt = pickle.loads(pickle.dumps(Adam(**ARGUMENTS)))
        assert repr(opt) == repr(Adam(**ARGUMENTS))
        assert opt.target is None
        opt.setup(np.ones(2)).apply_gradients(np.ones(2))
        assert opt.t == 1


class TestSetHyperparam:
    def test_overrides_hold_until_deleted(self) -> None:
        target = {"a": values(3, 1), "b": values(3, 1)}
        opt = Adam(**ARGUMENTS).setup(target)
        assert opt.set_hyperparam("b", alpha=0.5, beta1=0.25) == ["b"]
        opt.alpha = 0.04
        own = opt.parameters["b"].update_rule.hyperparam
        assert (own.alpha, own.beta1, own.beta2) == (0.5, 0.25, 0.95)
        assert opt.parameters["a"].update_rule.hyperparam.alpha == 0.04
        opt.apply_gradients({"a": np.ones(3), "b": np.ones(3)})
        assert not np.array_equal(target["a"], target["b"])
        del own.alpha, own.beta1
        assert (own.alpha, own.beta1) == (0.04, 0.8)

    def test_bits_are_those_of_an_optimizer_with_these_numbers(self) -> None:
        target, other = tree(), tree()
        opt = Adam(**ARGUMENTS).setup(target)
        changed = {
            "alpha": 0.5,
            "eps": 1e-4,
            "eta": 0.25,
            "weight_decay_rate": 0.125,
            "amsgrad": False,
        }
        opt.set_hyperparam("l1/*", **changed)
        # initial_alpha was taken at setup; a rule of these numbers would have its own
        for path in ("l1/b", "l1/c"):
            opt.parameters[path].update_rule.initial_alpha = 0.5
        twin, plain = Adam(**{**ARGUMENTS, **changed}).setup(other), Adam(**ARGUMENTS).setup(tree())
        for step in range(4):
            for one in (opt, twin, plain):
                one.apply_gradients(gradients(step))
        for path in ("l1/b", "l1/c"):
            assert snapshot(opt)[2][path] == snapshot(twin)[2][path]
        assert snapshot(opt)[2]["a"] == snapshot(plain)[2]["a"] != snapshot(twin)[2]["a"]

    def test_unknown_name_changes_nothing(self) -> None:
        opt = Adam().setup(tree())
        with pytest.raises(TypeError, match=r"'aplha'.*alpha"):
            opt.set_hyperparam("*", alpha=3, aplha=1)
        with pytest.raises(TypeError, match="name=value"):
            opt.set_hyperparam("*")
        assert opt.parameters["a"].update_rule.hyperparam.alpha == 0.001

    def test_parameter_without_a_rule_is_named(self) -> None:
        opt = Adam().setup(tree())
        opt.parameters["l1/b"].update_rule = None
        with pytest.raises(ValueError, match="'l1/b'"):
            opt.set_hyperparam("*", alpha=1)
        assert opt.parameters["a"].update_rule.hyperparam.alpha == 0.001

    def test_new_parameter_can_be_overridden_before_its_first_update(self) -> None:
        target: dict[str, Any] = {"a": np.ones(2)}
        opt = Adam().setup(target)
        target["b"] = np.ones(2)
        assert opt.set_hyperparam("b", alpha=0.5) == ["b"]
        opt.apply_gradients({"a": np.ones(2), "b": np.ones(2)})
        np.testing.assert_allclose(target["b"], 0.5, rtol=1e-5)
