"""compare and snapshot: every difference, and the first step at which runs part."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastadam import Adam, AdamW, AMSGrad, Hyperparameter, Link, Parameter
from fastadam.comparison.compare import compare
from fastadam.comparison.differences import Absent, Difference, Differences
from fastadam.update.snapshot import Snapshot, snapshot

ABSENT = Absent.ABSENT
SHAPES = {"W": (3, 4), "b": (4,)}

# A nudge that is not lost in rounding.
SEEN = (37, "W", (2, 2))


def train(
    steps: int = 60, nudge: tuple[int, str, tuple[int, ...]] | None = None, kind: type = AMSGrad
) -> Iterator[Any]:
    """Train on noise; the gradient of one element of one step may be nudged by one ULP."""
    rng = np.random.default_rng(3)
    params = {"l1": {name: np.zeros(shape) for name, shape in SHAPES.items()}}
    opt = kind(alpha=0.01).setup(params)
    for step in range(1, steps + 1):
        grads = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
        if nudge is not None and nudge[0] == step:
            element = nudge[2]
            grads[nudge[1]][element] = np.nextafter(grads[nudge[1]][element], np.inf)
        opt.apply_gradients({"l1": grads})
        yield opt


def last(run: Iterator[Any]) -> Any:
    """The optimizer at the end of a run."""
    *_, opt = run
    return opt


def places(found: Differences) -> list[tuple[str, str]]:
    return [(difference.where, difference.what) for difference in found]


# Runs


@pytest.mark.parametrize(
    ("name", "element"),
    [(name, element) for name, shape in SHAPES.items() for element in np.ndindex(shape)],
)
@pytest.mark.parametrize("step", [1, 37, 60])
def test_the_first_difference_of_runs(step: int, name: str, element: tuple[int, ...]) -> None:
    """Against records of both runs, looked through by hand."""
    nudge = (step, name, element)
    path = f"l1/{name}"
    for before, after in zip(train(nudge=nudge), train(), strict=True):
        states = [dict(opt.parameters[path].update_rule.state) for opt in (before, after)]
        seen = [key for key in ("m", "v", "vhat") if not np.array_equal(*(s[key] for s in states))]
        if seen:
            break
    found = compare(train(nudge=nudge), train())
    if not seen:  # the nudge was lost in rounding
        assert found.equal
        assert found.agreed == 60
        return
    assert (found.t, found.agreed) == (before.t, before.t - 1) == (step, step - 1)
    bits = [state[seen[0]].view("i8")[element] for state in states]
    assert found[0] == Difference(
        path,
        seen[0],
        states[0][seen[0]][element],
        states[1][seen[0]][element],
        1,
        math.prod(SHAPES[name]),
        abs(int(bits[0]) - int(bits[1])),
        found[0].relative,
        found[0].absolute,
        element,
    )
    assert {where for where, _ in places(found)} == {path}
    assert {difference.first_index for difference in found} == {element}


def test_most_nudges_are_seen() -> None:
    """So that the test above tests something."""
    elements = [(name, e) for name, shape in SHAPES.items() for e in np.ndindex(shape)]
    found = [compare(train(nudge=(37, *element)), train()) for element in elements]
    assert sum(not differences.equal for differences in found) >= 8


@pytest.mark.parametrize("first", ["iterator", "list"])
@pytest.mark.parametrize("second", ["iterator", "list", "tuple", "iterator of snapshots"])
def test_runs_may_be_recorded(first: str, second: str) -> None:
    forms = {
        "iterator": lambda run: run,
        "list": lambda run: [snapshot(opt) for opt in run],
        "tuple": lambda run: tuple(snapshot(opt) for opt in run),
        "iterator of snapshots": lambda run: map(snapshot, run),
    }
    a, b = forms[first](train()), forms[second](train(nudge=SEEN))
    found = compare(a, b)
    assert (found.t, found.agreed) == (37, 36)
    assert places(found)[0] == ("l1/W", "m")
    assert found[0].first_index == (2, 2)
    assert compare(forms[first](train()), forms[second](train())).equal


def test_iterators_are_advanced_in_turn_and_no_further() -> None:
    calls: list[str] = []

    def noted(name: str, run: Iterator[Any]) -> Iterator[Any]:
        for opt in run:
            calls.append(f"{name}{opt.t}")
            yield opt

    assert compare(noted("a", train()), noted("b", train(nudge=SEEN))).t == 37
    assert calls == [f"{name}{t}" for t in range(1, 38) for name in "ab"]


def test_a_run_that_ends_first() -> None:
    found = compare(train(2), train(5))
    assert list(found) == [Difference("", "steps", "2", "at least 3")]
    assert list(compare(train(5), train(2))) == [Difference("", "steps", "at least 3", "2")]
    assert list(compare([], train(1))) == [Difference("", "steps", "0", "at least 1")]
    assert compare([], []).equal
    # a difference before the end is told first
    assert compare(train(5), train(2, kind=Adam)).agreed == 0


def test_a_run_equals_itself() -> None:
    run = [snapshot(opt) for opt in train(3)]
    assert compare(run, run).equal


def test_runs_of_targets() -> None:
    def walk(offset: float) -> Iterator[Any]:
        for n in range(5):
            yield {"w": np.full(3, float(n)) + (offset if n == 3 else 0.0)}

    found = compare(walk(0), walk(0.5))
    assert (found.t, found.agreed, places(found)) == (None, 3, [("w", "param")])
    assert repr(found).startswith("first difference after 3 steps without any\n")


@pytest.mark.parametrize("same", ["optimizer", "arrays"])
def test_runs_that_train_the_same_arrays_are_refused(same: str) -> None:
    params = {"w": np.zeros(2)}
    opts = [Adam().setup(params)]
    opts.append(opts[0] if same == "optimizer" else Adam().setup(params))
    with pytest.raises(ValueError, match="same array as 'param' of 'w'"):
        compare(iter(opts[:1]), iter(opts[1:]))


def test_an_exception_in_a_run_comes_out() -> None:
    def broken() -> Iterator[Any]:
        yield from train(2)
        raise RuntimeError("out of gradients")

    with pytest.raises(RuntimeError, match="out of gradients"):
        compare(train(), broken())


# Optimizers


def test_every_kind_of_difference_with_both_values() -> None:
    a, b = last(train(4)), last(train(5, kind=AdamW))
    a.epoch, b.on_nonfinite = 2, "skip"
    b.set_hyperparam("l1/b", eta=0.5)
    b.add_hook(lambda opt: None, "mine", "post")
    b.parameters["l1/W"].update_rule.enabled = False
    b.parameters["l1/W"].update_rule.state["m"] = np.zeros((3, 4), "f4")
    b.parameters["l1/b"].update_rule.state["m"] = np.zeros((2, 2))
    b.parameters["l1/b"].update_rule._fp32_param = Parameter(np.ones(4, "f4"))
    found = compare(a, b)
    by_place = {(d.where, d.what): (d.a, d.b) for d in found}
    expected = {
        ("", "class"): (AMSGrad, AdamW),
        ("", "t"): (4, 5),
        ("", "epoch"): (2, 0),
        ("", "hyperparam.amsgrad"): (True, False),
        ("", "on_nonfinite"): ("propagate", "skip"),
        ("", "hooks"): ((), ("post mine",)),
        ("l1/W", "rule.t"): (4, 5),
        ("l1/W", "rule.enabled"): (True, False),
        ("l1/b", "rule.t"): (4, 5),
        ("l1/b", "hyperparam.eta"): (ABSENT, 0.5),
        ("l1/W", "m.dtype"): (np.dtype("f8"), np.dtype("f4")),
        ("l1/W", "vhat"): ("float64 (3, 4)", ABSENT),
        ("l1/b", "m.shape"): ((4,), (2, 2)),
        ("l1/b", "vhat"): ("float64 (4,)", ABSENT),
        ("l1/b", "fp32_param"): (ABSENT, "float32 (4,)"),
    }
    assert {key: by_place[key] for key in expected} == expected
    arrays = [("l1/W", "v"), ("l1/W", "param"), ("l1/b", "v"), ("l1/b", "param")]
    assert set(by_place) - set(expected) == set(arrays)


def test_the_order_is_that_of_cause() -> None:
    a, b = last(train(4)), last(train(4))
    for path in ("l1/b", "l1/W"):
        param = b.parameters[path]
        rule = param.update_rule
        rule._fp32_param = Parameter(np.ones(2, "f4"))
        for array in (param.array, *reversed(rule.state.values())):
            array += 1
        # the order in which a state was filled does not count
        rule._state = {"extra": np.ones(1), **dict(reversed(rule.state.items()))}
        rule.enabled = False
    b.t += 1
    names = ("m", "v", "vhat", "extra", "fp32_param", "param")
    facts = [("", "t"), ("l1/W", "rule.enabled"), ("l1/b", "rule.enabled")]
    expected = facts + [(path, name) for path in ("l1/W", "l1/b") for name in names]
    assert places(compare(a, b)) == expected
    assert sorted(places(compare(b, a))) == sorted(expected)
    assert [p for p in places(compare(b, a)) if p[0] == "l1/b"] == [
        place for place in expected if place[0] == "l1/b"
    ]


def test_comparing_the_other_way_round_swaps_the_values() -> None:
    a, b = last(train(4)), last(train(5, kind=AdamW))

    def swapped(found: Differences) -> set[Any]:
        return {dataclasses.replace(d, a=d.b, b=d.a) for d in found}

    assert swapped(compare(a, b)) == set(compare(b, a))


def test_optimizers_are_compared_with_their_parameters() -> None:
    a, b = last(train(4)), last(train(4))
    assert compare(a, b).equal
    b.target["l1"]["W"][1, 1] += 1
    assert a == b
    assert places(compare(a, b)) == [("l1/W", "param")]


def test_a_rebound_array_is_seen() -> None:
    a, b = last(train(4)), last(train(4))
    b.target["l1"]["W"] = b.target["l1"]["W"] + 1
    assert places(compare(a, b)) == [("l1/W", "param")]


def test_parameters_of_one_side_only() -> None:
    a, b = last(train(4)), last(train(4))
    a.target["l1"]["c"] = np.ones(2)
    b.target["l2"] = np.ones(2)
    assert list(compare(a, b)) == [
        Difference("l1/c", "parameter", "present", ABSENT),
        Difference("l2", "parameter", ABSENT, "present"),
    ]


def test_a_state_that_one_side_lacks() -> None:
    found = compare(last(train(4)), last(train(4, kind=Adam)))
    assert ("l1/W", "vhat") in places(found)
    fresh = Adam(alpha=0.01).setup({"l1": {n: np.zeros(s) for n, s in SHAPES.items()}})
    found = compare(last(train(4, kind=Adam)), fresh)
    assert Difference("l1/W", "m", "float64 (3, 4)", ABSENT) in found.differences


def test_the_numbers_of_an_array() -> None:
    a, b = last(train(4)), last(train(4))
    m = [opt.parameters["l1/W"].update_rule.state["m"] for opt in (a, b)]
    m[0][:] = m[1][:] = 1.0
    m[1][1, 2] = 1 + 3 * 2.0**-52
    m[1][2, 0] = 1 - 2 * 2.0**-53
    (found,) = compare(a, b)
    assert found == Difference(
        "l1/W", "m", 1.0, m[1][1, 2], 2, 12, 3, 3 * 2.0**-52 / m[1][1, 2], 3 * 2.0**-52, (1, 2)
    )
    m[1][0, 3] = np.nan
    (found,) = compare(a, b)
    assert (found.count, found.ulps, found.first_index) == (3, math.inf, (0, 3))
    assert np.isnan(found.b)
    m[0][0, 3] = np.nan
    (found,) = compare(a, b)
    assert (found.count, found.ulps) == (2, 3)


def test_not_set_up() -> None:
    assert compare(Adam(), Adam()).equal
    assert places(compare(Adam(), Adam(eps=1e-7))) == [("", "hyperparam.eps")]


def test_copies() -> None:
    opt = last(train(4))
    for other in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), snapshot(opt)):
        assert compare(opt, other).equal
        assert compare(other, opt).equal


# Targets


def test_targets_of_any_kind() -> None:
    link = Link()
    with link.init_scope():
        link.w = Parameter(np.ones(3))
    assert compare(link, {"w": np.ones(3)}).equal
    assert places(compare(link, {"w": np.zeros(3)})) == [("w", "param")]
    assert places(compare(np.ones(3), np.zeros(3))) == [("param", "param")]
    assert places(compare([np.ones(3), np.ones(1)], (np.ones(3), np.zeros(1)))) == [("1", "param")]
    assert places(compare({"w": np.ones(3)}, {"u": np.ones(3)})) == [
        ("w", "parameter"),
        ("u", "parameter"),
    ]
    assert list(compare({"w": np.ones(3)}, {"w": np.ones(2, "f4")})) == [
        Difference("w", "param.shape", (3,), (2,)),
        Difference("w", "param.dtype", np.dtype("f8"), np.dtype("f4")),
    ]
    shared = np.ones(1)
    assert list(compare([np.ones(1), np.ones(1)], [shared, shared])) == [
        Difference("1", "shared with", ABSENT, "0"),
        Difference("1", "parameter", "present", ABSENT),
    ]


def test_uninitialised_parameters() -> None:
    links = [Link(), Link()]
    for link in links:
        with link.init_scope():
            link.w = Parameter(0)
    assert compare(*links).equal
    links[1].w.initialize(2)
    assert list(compare(*links)) == [Difference("w", "param", ABSENT, "float32 (2,)")]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (Adam(), {"w": np.ones(1)}, "cannot compare an optimizer with a target"),
        ({"w": np.ones(1)}, Adam(), "cannot compare an optimizer with a target"),
        (Adam(), iter([]), "cannot compare Adam with a run"),
        ([], Adam(), "cannot compare a run with Adam"),
        (3.0, 3.0, "compare takes optimizers, targets, snapshots"),
        (Adam(), "adam", "compare takes .* not builtins.str"),
        ([Adam()], [Adam()], "compare takes .* lists of snapshots"),
    ],
)
def test_what_cannot_be_compared(a: Any, b: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        compare(a, b)


# The result


def test_the_result_is_a_frozen_sequence() -> None:
    found = compare(Adam(alpha=0.5), Adam(eps=0.5))
    assert isinstance(found, Differences)
    assert not found.equal
    assert found
    assert len(found) == 2
    assert list(found) == [found[0], found[1]] == list(found[:2])
    assert found[0] in found
    assert isinstance(found[0], Difference)
    nothing = compare(Adam(), Adam())
    assert nothing.equal
    assert not nothing
    assert list(nothing) == []
    for frozen, name in ((found, "t"), (found[0], "a")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, 1)


def test_tables() -> None:
    assert str(compare(Adam(), Adam())) == "no difference"
    assert str(compare(train(1), train(1))) == "no difference in 1 step"
    assert str(compare(train(7), train(7))) == "no difference in 7 steps"
    assert str(compare(Adam(), Adam(alpha=np.float64(0.5)))) == (
        "where  what              a      b\n"  #
        "-      hyperparam.alpha  0.001  0.5"
    )
    a = {"layer": np.array([[1, 2], [3, 4]], "f4"), "b": np.array(1.0)}
    b = {
        "layer": np.array([[1, 2.5], [3, np.nextafter(np.float32(4), np.float32(5))]], "f4"),
        "b": np.array(-8.0),
    }
    assert str(compare(a, b)) == repr(compare(a, b))
    assert str(compare(a, b)).splitlines() == [
        "where  what   a    b     differ  ULPs                 relative  absolute  first at",
        "layer  param  2.0  2.5   2 of 4  2097152              0.2       0.5       (0, 1)",
        f"b      param  1.0  -8.0  1 of 1  {4620693217682128896 + 4607182418800017408}  "
        "1.12      9         ()",
    ]
    found = compare(train(), train(kind=Adam))
    lines = str(found).splitlines()
    assert lines[0] == "first difference at t=1, after 0 steps without any"
    assert lines[1].split() == ["where", "what", "a", "b"]
    assert lines[2] == (
        "-      class               fastadam.optimizers.variants.AMSGrad  "
        "fastadam.optimizers.adam.Adam"
    )
    assert lines[-1] == ("l1/b   vhat                float64 (4,)                          absent")
    assert "l1/W   rule" not in str(found)


# Snapshots


def test_a_snapshot_stays_as_it_was() -> None:
    opt = last(train(4))
    # a user's own bag may hold anything
    opt.hyperparam = Hyperparameter(opt.hyperparam)
    opt.hyperparam.mine = np.zeros(2)
    opt.hyperparam.list = [1]
    rule = opt.parameters["l1/W"].update_rule
    before = snapshot(opt)
    values = {key: array.copy() for key, array in before.arrays.items()}
    opt.apply_gradients({"l1": {name: np.ones(shape) for name, shape in SHAPES.items()}})
    opt.new_epoch()
    opt.hyperparam.mine[:] = 5
    opt.hyperparam.list.append(2)
    rule.state["m"][:] = 3
    assert (before.t, before.epoch, before.kind) == (4, 0, AMSGrad)
    assert before.facts["", "hyperparam.mine"].tolist() == [0, 0]
    assert before.facts["", "hyperparam.list"] == [1]
    assert set(values) == {
        (f"l1/{name}", key) for name in SHAPES for key in ("m", "v", "vhat", "param")
    }
    for key, array in before.arrays.items():
        np.testing.assert_array_equal(array, values[key])
        assert not array.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.kind = None  # type: ignore[misc]
    assert {"t", "epoch"} <= {d.what for d in compare(before, opt)}


def test_a_snapshot_can_be_pickled() -> None:
    before = snapshot(last(train(4)))
    other = pickle.loads(pickle.dumps(before))
    assert isinstance(other, Snapshot)
    assert compare(before, other).equal
    assert compare(other, last(train(4))).equal
    assert not compare(other, last(train(5))).equal


def test_a_snapshot_of_a_target() -> None:
    params = {"w": np.ones(3)}
    before = snapshot(params)
    assert (before.t, before.epoch, before.kind, before.paths) == (None, None, None, ("w",))
    params["w"] += 1
    assert places(compare(before, params)) == [("w", "param")]
    with pytest.raises(TypeError):
        snapshot("params")


def test_what_snapshots_say_of_themselves() -> None:
    assert repr(snapshot(last(train(4)))) == "<snapshot of AMSGrad at t=4: 2 parameters>"
    assert repr(snapshot(np.ones(1))) == "<snapshot of a target: 1 parameter>"
    assert repr(snapshot(Adam())) == "<snapshot of Adam at t=0: 0 parameters>"


def test_a_hook_records() -> None:
    """The way to record where somebody else's loop makes the steps."""
    records: list[list[Snapshot]] = []
    for nudge in (None, (3, "b", (1,)), None):
        run: list[Snapshot] = []
        for n, opt in enumerate(train(5, nudge)):
            if n == 0:
                opt.add_hook(lambda opt, run=run: run.append(snapshot(opt)), "record", "post")
        records.append(run)
    assert [[s.t for s in run] for run in records] == [[2, 3, 4, 5]] * 3
    assert compare(records[0], records[2]).equal
