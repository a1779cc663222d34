"""Who updates what, in which order, and what is said when something raises on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.model._gradients import gradients_of
from fastadam.update.plan import UpdatePlan

HYPER = {"alpha": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "eta": 0.7}


class Interrupt(Exception):
    """What hooks and cores raise."""


class SGDRule(fastadam.UpdateRule):
    """A rule that is not Adam's, with a momentum."""

    def init_state(self, param: Any) -> None:
        self.state["velocity"] = np.zeros_like(param.array)

    def update_core(self, param: Any) -> None:
        velocity = self.state["velocity"]
        velocity *= 0.5
        velocity -= self.hyperparam.alpha * param.grad
        param.array += velocity


class Raise:
    """A hook that raises for one path and does nothing for the others."""

    def __init__(self, path: str, error: type[BaseException]) -> None:
        self.path, self.error = path, error

    def __call__(self, rule: Any, param: Any) -> None:
        if rule.path == self.path:
            raise self.error


GRADIENTS = {
    "float32": {path: np.linspace(1, 2, 3) + i for i, path in enumerate("abcd")},
    "float16": {path: np.linspace(1, 2, 3) - 2 * i for i, path in enumerate("abcd")},
}


def set_up(dtype: str = "float32", kind: str = "hooks", fp32: bool = False) -> tuple[Any, dict]:
    """Four parameters; 'd' is in Adam's batch, the others work by themselves."""
    params = {path: np.linspace(-1, 1, 3).astype(dtype) for path in "abcd"}
    opt = fastadam.AdamW(**HYPER, weight_decay_rate=0.01).setup(params)
    for path in "abc":
        if kind == "sgd":
            rule = SGDRule(opt.hyperparam)
            rule.path = path
            opt.parameters[path].update_rule = rule
        elif kind == "hooks":
            opt.parameters[path].update_rule.add_hook(lambda rule, param: None, "nothing")
    opt.use_fp32_update(fp32)
    return opt, params


def whole(opt: Any, path: str) -> tuple[Any, ...]:
    """Everything about one parameter."""
    param = opt.parameters[path]
    rule = param.update_rule
    state = {key: value.tolist() for key, value in (rule.state or {}).items()}
    master = param if rule._fp32_param is None else rule._fp32_param
    return param.array.tolist(), rule.t, state, master.array.tolist()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("kind", ["hooks", "sgd"])
@pytest.mark.parametrize("position", ["pre", "core", "post", "optimizer post", "optimizer pre"])
@pytest.mark.parametrize("error", [Interrupt, KeyboardInterrupt])
def test_each_parameter_is_before_or_after_its_step(
    error: type[BaseException], position: str, kind: str, fp32: bool, first: bool
) -> None:
    """Something raises at 'b', in the first update or a later one: a and the batch are done."""
    dtype = "float16" if fp32 else "float32"
    opt, _ = set_up(dtype, kind, fp32)
    other, _ = set_up(dtype, kind, fp32)
    steps = 0 if first else 2
    for one in (opt, other):
        for _ in range(steps):
            one.apply_gradients(GRADIENTS[dtype])
    before = {path: whole(opt, path) for path in "abcd"}
    report = opt.last_update
    rule = opt.parameters["b"].update_rule
    hook = Raise("b", error)
    if position == "core":

        def core(param: Any) -> None:
            raise error

        rule.update_core = core
    elif position.startswith("optimizer"):
        opt.add_hook(lambda opt: hook(rule, None), "raise", timing=position.split()[1])
    else:
        rule.add_hook(hook, "raise", timing=position)
    with pytest.raises(error):
        opt.apply_gradients(GRADIENTS[dtype])
    other.apply_gradients(GRADIENTS[dtype])
    after = {path: whole(other, path) for path in "abcd"}
    done = {
        "optimizer pre": (),
        "pre": ("a", "d"),
        # Ctrl-C during a step arrives when the kernel is done: that step counts
        "core": ("a", "d") if error is Interrupt else ("a", "b", "d"),
        "post": ("a", "b", "d"),
        "optimizer post": ("a", "b", "c", "d"),
    }[position]
    if position == "core" and error is KeyboardInterrupt:
        # here the core was replaced, so that nothing but the count is there
        assert opt.parameters["b"].update_rule.t == after["b"][1]
        after["b"] = whole(opt, "b")
    for path in "abcd":
        assert before[path] != after[path] or path == "b"
        assert whole(opt, path) == (after if path in done else before)[path], path
    assert opt.t == steps + bool(done)
    if done:
        assert opt.last_update.applied == done
        assert opt.last_update.skipped is False
        assert opt.last_update.t == opt.t
    else:
        assert opt.last_update is report
    # lent gradients are given back, and one can go on once the cause is gone
    assert all(param.grad is None for param in opt.parameters.values())


@pytest.mark.parametrize("position", ["pre", "core", "post"])
def test_going_on_after_an_interrupted_update(position: str) -> None:
    """With one parameter, which is wholly before or after: the update is made or not made."""
    runs = []
    for fails in (True, False):
        params = {"w": np.linspace(-1, 1, 3)}
        opt = fastadam.Adam(**HYPER).setup(params)
        rule = opt.parameters["w"].update_rule
        for i in range(4):
            if fails and i == 2:
                if position == "core":
                    rule.update_core = lambda param: Raise("w", Interrupt)(rule, param)  # noqa: B023
                else:
                    rule.add_hook(Raise("w", Interrupt), "raise", position)
                with pytest.raises(Interrupt):
                    opt.apply_gradients({"w": np.full(3, 1.0 + i)})
                if position == "core":
                    del rule.update_core
                else:
                    rule.remove_hook("raise")
                if position == "post":
                    continue
            opt.apply_gradients({"w": np.full(3, 1.0 + i)})
        runs.append((params["w"].tolist(), whole(opt, "w"), opt.t))
    assert runs[0] == runs[1]


def test_nothing_is_counted_if_the_first_of_all_raises() -> None:
    opt, params = set_up()
    opt.parameters["d"].update_rule.enabled = False
    opt.parameters["a"].update_rule.add_hook(Raise("a", Interrupt), "raise")
    before = {path: whole(opt, path) for path in "abcd"}
    with pytest.raises(Interrupt):
        opt.apply_gradients(GRADIENTS["float32"])
    assert {path: whole(opt, path) for path in "abcd"} == before
    assert (opt.t, opt.last_update) == (0, None)
    assert params["a"].tolist() == [-1, 0, 1]


class Recorder(fastadam.UpdateRule):
    """A rule that writes down what is called."""

    calls: list[Any] = []  # noqa: RUF012
    key: Any = None

    def batch_key(self) -> Any:
        return self.key

    @classmethod
    def check_batch(cls, rules: Any, params: Any) -> None:
        cls.calls.append(("check", [rule.path for rule in rules], [p.name for p in params]))

    @classmethod
    def update_batch(cls, rules: Any, params: Any) -> None:
        cls.calls.append(("batch", [rule.path for rule in rules], [p.name for p in params]))
        for rule in rules:
            rule.t += 1

    def update(self, param: Any) -> None:
        self.calls.append(("single", self.path, param.name))
        self.t += 1


def recorded(keys: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Parameters whose rules have these keys, and the list that the rules write to."""
    kind = type("Kind", (Recorder,), {"calls": []})
    params = {}
    for path, key in keys.items():
        param = fastadam.Parameter(np.ones(1), name=path.upper())
        param.update_rule = kind()
        param.update_rule.path, param.update_rule.key = path, key
        params[path] = param
    return params, kind.calls


def planned(params: dict[str, Any]) -> UpdatePlan:
    return UpdatePlan(params, gradients_of(list(params.values())), skip=False)


def test_batches_first_then_the_others_in_the_order_of_their_paths() -> None:
    keys = {"a": None, "b": "one", "c": "two", "d": None, "e": "one", "f": "two"}
    params, calls = recorded(keys)
    work = planned(params)
    counts = work.begin()
    assert work.applied(counts) == ()
    assert calls == [
        ("check", ["b", "e"], ["B", "E"]),
        ("check", ["c", "f"], ["C", "F"]),
        ("check", ["a"], ["A"]),
        ("check", ["d"], ["D"]),
    ]
    calls.clear()
    work.run({}, {})
    assert calls == [
        ("batch", ["b", "e"], ["B", "E"]),
        ("batch", ["c", "f"], ["C", "F"]),
        ("single", "a", "A"),
        ("single", "d", "D"),
    ]
    assert work.applied(counts) == tuple("abcdef")


@pytest.mark.parametrize("keys", [{"a": "one", "b": "one"}, {"a": None}])
def test_who_is_alone_is_not_asked_twice(keys: dict[str, Any]) -> None:
    """A single batch, or a single rule, refuses by itself before it writes."""
    params, calls = recorded(keys)
    planned(params)
    assert calls == []


def test_who_is_left_out() -> None:
    params, calls = recorded(dict.fromkeys("abcde"))
    params["a"].update_rule.enabled = False
    params["b"].update_rule = None
    lazy = fastadam.Parameter()
    lazy.update_rule = params["c"].update_rule
    params["c"] = lazy
    work = planned(params)
    counts = work.begin()
    work.run({}, {})
    assert [call[1] for call in calls if call[0] == "single"] == ["d", "e"]
    assert work.applied(counts) == ("d", "e")


def test_a_rule_that_two_parameters_share_counts_both() -> None:
    """The second does not get into the batch, where both would have the same t."""
    params, calls = recorded({"a": "one", "b": "one", "c": "one"})
    params["b"].update_rule = params["a"].update_rule
    work = planned(params)
    counts = work.begin()
    work.run({}, {})
    assert calls[2:] == [("batch", ["a", "c"], ["A", "C"]), ("single", "a", "B")]
    assert params["a"].update_rule.t == 2
    assert work.applied(counts) == ("a", "b", "c")


class Foreign:
    """A rule of somebody else: no batches, no count, not even a flag."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def update(self, param: Any) -> None:
        if self.fails:
            raise Interrupt
        param.array *= 2


def test_rules_that_are_not_of_this_library() -> None:
    params, calls = recorded({"a": "one", "b": None, "c": None})
    params["b"].update_rule = Foreign()
    work = planned(params)
    counts = work.begin()
    work.run({}, {})
    assert params["b"].array.tolist() == [2]
    assert work.applied(counts) == ("a", "b", "c")
    assert [call[0] for call in calls] == ["check", "check", "batch", "single"]
    params["b"].update_rule = Foreign(fails=True)
    work = planned(params)
    counts = work.begin()
    with pytest.raises(Interrupt):
        work.run({}, {})
    assert work.applied(counts) == ("a",)


def test_a_batch_that_raises_half_way() -> None:
    """The rules' counts tell who was reached."""
    params, _ = recorded({"a": "one", "b": "one", "c": "one"})

    def half_way(cls: Any, rules: Any, params: Any) -> None:
        for rule in rules[:2]:
            rule.t += 1
        raise Interrupt

    kind = type(params["a"].update_rule)
    kind.update_batch = classmethod(half_way)
    work = planned(params)
    counts = work.begin()
    with pytest.raises(Interrupt):
        work.run({}, {})
    assert work.applied(counts) == ("a", "b")


def test_a_refusal_by_one_stops_everybody() -> None:
    """Also where the one that refuses would have come last."""
    opt, params = set_up(kind="hooks")
    params["c"].flags.writeable = False
    before = {path: whole(opt, path) for path in "abcd"}
    with pytest.raises(ValueError, match="'c'"):
        opt.apply_gradients(GRADIENTS["float32"])
    assert {path: whole(opt, path) for path in "abcd"} == before
    assert (opt.t, opt.last_update) == (0, None)


@pytest.mark.parametrize("key", ["m", "v"])
def test_memory_of_those_that_are_updated_apart_is_not_shared(key: str) -> None:
    """Neither after the first update nor when an array has another place later."""
    for before in (0, 3):
        params = {path: np.linspace(-1, 1, 3) for path in "ab"}
        opt = fastadam.Adam(**HYPER).setup(params)
        opt.parameters["b"].update_rule.add_hook(lambda rule, param: None)
        gradients = {path: np.ones(3) for path in "ab"}
        for _ in range(before + 1):
            opt.apply_gradients(gradients)
        theirs = opt.parameters["b"].update_rule.state["v"]
        opt.parameters["a"].update_rule.state[key] = theirs
        kept = params["a"].copy(), params["b"].copy(), theirs.copy()
        with pytest.raises(ValueError, match=r"shares? memory"):
            opt.apply_gradients(gradients)
        assert opt.t == before + 1
        for now, old in zip((params["a"], params["b"], theirs), kept, strict=True):
            np.testing.assert_array_equal(now, old)
