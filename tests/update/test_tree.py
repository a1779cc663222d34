"""Trees looked at and matched in C: beside walks in Python, and without a call for each array."""

from __future__ import annotations

import collections
import gc
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_calls import count_calls

import fastadam
from fastadam.update import paths
from fastadam.update._tree import CHANGED, MOVED, SAME, TreeSpec
from fastadam.update.target import ArrayTarget, LinkTarget


class Keyed(dict[Any, Any]):
    """A dict with a way of its own to say what it holds: backwards."""

    def items(self) -> Any:
        return list(super().items())[::-1]

    def __iter__(self) -> Iterator[Any]:
        return iter([key for key, _ in self.items()])


class Doubled(list[Any]):
    """A list of a class of its own."""


Pair = collections.namedtuple("Pair", ["one", "two"])

LEAVES = st.integers(0, 5)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from([dict, collections.OrderedDict, Keyed]),
            st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
        ),
        st.tuples(st.sampled_from([list, tuple, Doubled]), st.lists(inner, max_size=4)),
        st.tuples(st.just(Pair), st.lists(inner, min_size=2, max_size=2)),
    ),
    max_leaves=12,
)


def built(plan: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """Make the tree of a plan; of one number, the same array."""
    if isinstance(plan, int):
        return arrays[plan]
    kind, inner = plan
    if isinstance(inner, dict):
        return kind({key: built(each, arrays) for key, each in inner.items()})
    made = [built(each, arrays) for each in inner]
    return kind(*made) if kind is Pair else kind(made)


def gradients_for(plan: Any, data: Any) -> Any:
    """Draw gradients for a plan: of its structure, mostly, in any order, and None."""
    how = data.draw(st.integers(0, 30))
    if how == 0:
        return None
    if isinstance(plan, int):
        if how == 1:
            return data.draw(st.sampled_from([1.5, [1.0], {}, np.ones(3)]))
        return np.full(2, data.draw(st.integers(0, 9)), data.draw(st.sampled_from(["f2", "f8"])))
    _, inner = plan
    if how == 1:
        return data.draw(st.sampled_from([[], {}, (), {"a": None}, np.ones(2), "text"]))
    if isinstance(inner, dict):
        keys = data.draw(st.permutations(list(inner)))
        # equal to the target's keys, not the same objects
        fresh = ["".join([*key, ""]) if how % 2 else bytes(key, "ascii").decode() for key in keys]
        pairs = {f: gradients_for(inner[k], data) for f, k in zip(fresh, keys, strict=True)}
        if how == 2 and pairs:
            pairs.popitem()
        if how == 3:
            pairs["other"] = None
        kinds = [dict, dict, collections.OrderedDict, Keyed, types.MappingProxyType]
        return data.draw(st.sampled_from(kinds))(pairs)
    items = [gradients_for(each, data) for each in inner]
    if how == 2:
        items.append(None)
    return data.draw(st.sampled_from([list, tuple, Doubled]))(items)


def same(one: Any, other: Any) -> bool:
    """Tell whether two gradients are one object, or equal sums."""
    kinds = np.ndarray, np.generic
    if isinstance(one, kinds) and isinstance(other, kinds):
        return one is other or (one.dtype == other.dtype and bool(np.array_equal(one, other)))
    return one is other


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_matching_in_c_gives_what_matching_by_name_gives(data: Any) -> None:
    plan = data.draw(TREES)
    arrays = [np.full(2, float(i)) for i in range(6)]
    try:
        target = ArrayTarget(built(plan, arrays))
    except ValueError as error:
        assert "no array" in str(error)  # noqa: PT017
        return
    grads = gradients_for(plan, data)
    expected: Any
    try:
        expected = target.gradients(grads)
    except (ValueError, TypeError) as error:
        expected = error
    if isinstance(expected, Exception):
        try:
            assert target.ordered(grads) is None
        except (ValueError, TypeError) as error:
            # two gradients of one array that cannot be added
            assert (type(error), str(error)) == (type(expected), str(expected))  # noqa: PT017
        return
    found = target.ordered(grads)
    assert found is not None
    assert list(expected) == list(target.parameters)
    assert all(map(same, found, expected.values()))
    assert len(found) == len(expected)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_links_gradients_in_c_are_those_by_name(data: Any) -> None:
    names = data.draw(st.lists(st.sampled_from("abcde"), min_size=1, unique=True))
    link = fastadam.Chain(**{name: fastadam.Link(W=2) for name in names})
    target = LinkTarget(link)
    paths = [f"{name}/W" for name in data.draw(st.permutations(names))]
    forms = ["{}", "{}", "/{}", "{}/", "//{}/"]
    pairs = [(data.draw(st.sampled_from(forms)).format(path), np.ones(2)) for path in paths]
    how = data.draw(st.integers(0, 9))
    if how == 0:
        pairs.append((f"/{paths[0]}/", np.zeros(2)))
    if how == 1:
        pairs.pop()
    if how == 2:
        pairs.append(("other/W", np.ones(2)))
    kinds = [dict, dict, collections.OrderedDict, Keyed, types.MappingProxyType]
    grads = data.draw(st.sampled_from(kinds))(dict(pairs))
    try:
        expected = target.gradients(grads)
    except ValueError:
        assert target.ordered(grads) is None
        return
    found = target.ordered(grads)
    assert found is not None
    assert len(found) == len(expected)
    assert all(one is expected[path] for one, path in zip(found, target.parameters, strict=True))
    assert target.ordered(list(grads)) is None


def test_keys_of_links_that_are_no_plain_strings_are_left_to_the_longer_way() -> None:
    class Path(str):
        __slots__ = ()

    target = LinkTarget(fastadam.Chain(a=fastadam.Link(W=2)))
    assert target.ordered({Path("a/W"): np.ones(2)}) is None
    assert target.ordered({b"a/W": np.ones(2)}) is None
    assert list(target.gradients({Path("a/W"): None})) == ["a/W"]


def changes(data: Any, tree: Any) -> None:
    """Change something of a tree, anywhere; or nothing."""
    while True:
        if isinstance(tree, tuple) or not len(tree):
            inner = [each for each in tree if isinstance(each, (dict, list))] if tree else []
            if not inner:
                return
            tree = data.draw(st.sampled_from(inner))
            continue
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(tree[key], np.ndarray) and data.draw(st.booleans()):
            tree = tree[key]
            continue
        break
    how = data.draw(st.integers(0, 9))
    if how == 0:
        del tree[key]
    elif how == 1 and isinstance(tree, dict):
        tree[key] = tree.pop(key)
    elif how == 2 and isinstance(tree, dict):
        tree["new"] = np.full(2, 7.0)
    elif how == 3 and isinstance(tree, list):
        tree.reverse()
    elif how == 4:
        tree[key] = data.draw(st.sampled_from([np.ones(3), np.ones(2, "f4"), np.ones(4)[::2]]))
    elif how == 5 and isinstance(tree, collections.OrderedDict):
        tree.move_to_end(key)
    elif how == 6:
        tree[key] = [np.full(2, 8.0)]
    elif isinstance(tree[key], np.ndarray):
        tree[key] = tree[key].copy() if how % 2 else tree[keys[0]]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_look_finds_what_a_new_walk_finds(data: Any) -> None:
    plan = data.draw(TREES.filter(lambda plan: not isinstance(plan, int)))
    tree = built(plan, [np.full(2, float(i)) for i in range(6)])
    try:
        target = ArrayTarget(tree)
    except ValueError:
        return
    for _ in range(4):
        before = dict(paths.leaves_of(tree, ""))
        known = dict(target.parameters)
        changes(data, tree)
        leaves = dict(paths.leaves_of(tree, ""))
        as_before = list(leaves) == list(before) and all(leaves[p] is a for p, a in before.items())
        if not leaves:
            return
        # containers may have been changed, too
        assert as_before or not target.unchanged()
        try:
            anew = ArrayTarget(tree)
        except ValueError as error:
            with pytest.raises(ValueError, match="share part"):
                target.refresh()
            assert "share part" in str(error)  # noqa: PT017
            return
        target.refresh()
        assert target.unchanged()
        assert list(target.parameters) == list(anew.parameters)
        assert target.aliases == anew.aliases
        for path, param in target.parameters.items():
            assert param.array is anew.parameters[path].array
            assert param is known.get(path, param)


def flat(n: int) -> dict[str, Any]:
    return {str(i): np.full(3, float(i)) for i in range(n)}


def deep(n: int) -> list[Any]:
    return [{"W": np.ones((2, 2)), "b": (np.ones(2), [np.ones(1)])} for _ in range(n)]


def ordered(n: int) -> Any:
    return collections.OrderedDict(flat(n))


def replaced(tree: Any, new: Callable[[Any], Any]) -> None:
    """Put other arrays into a tree, but for tuples."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        if not isinstance(value, np.ndarray):
            replaced(value, new)
        elif not isinstance(tree, tuple):
            tree[key] = new(value)


@pytest.mark.parametrize("make", [flat, deep, ordered])
def test_no_call_for_each_array(make: Callable[[int], Any]) -> None:
    found = []
    for n in (3, 300):
        tree = make(n)
        grads = make(n)
        other = {key: grads[key] for key in reversed(grads)} if isinstance(grads, dict) else grads
        target = ArrayTarget(tree)
        param = next(iter(target.parameters.values()))
        counts = [
            count_calls(target.unchanged),
            count_calls(target.refresh),
            count_calls(target.finish),
            count_calls(lambda t=target, g=grads: t.ordered(g)),
            count_calls(lambda t=target, g=other: t.ordered(g)),
        ]
        replaced(tree, np.copy)
        counts.append(count_calls(target.refresh))
        assert target.unchanged()
        assert param.array is next(paths.leaves_of(tree, ""))[1]
        found.append(counts)
    assert found[0] == found[1]
    assert max(found[0]) <= 10


def test_no_call_for_each_parameter_of_a_link() -> None:
    found = []
    for n in (3, 300):
        target = LinkTarget(fastadam.Chain(**{f"l{i}": fastadam.Link(W=2) for i in range(n)}))
        grads = {f"/{path}": np.ones(2) for path in reversed(target.parameters)}
        plain = {path: np.ones(2) for path in target.parameters}
        found.append([count_calls(lambda t=target, g=g: t.ordered(g)) for g in (grads, plain)])
    assert found[0] == found[1] == [1, 1]


def test_one_call_for_each_tie() -> None:
    a, b = np.ones(2), np.ones(3)
    tree = {"a": a, "b": b, "c": a, **{f"p{i}": np.ones(1) for i in range(50)}}
    target = ArrayTarget(tree)
    few = ArrayTarget({"a": a, "b": b, "c": a})
    grads: Any = {key: np.full(array.shape, 2.0) for key, array in tree.items()}
    found = target.ordered(grads)
    assert found is not None
    np.testing.assert_array_equal(found[0], np.full(2, 4.0))
    others = zip(found[1:], [*target.parameters][1:], strict=True)
    assert all(one is grads[path] for one, path in others)
    small = {key: grads[key] for key in "abc"}
    assert count_calls(lambda: target.ordered(grads)) == count_calls(lambda: few.ordered(small))


def test_sums_of_ties_are_made_whatever_the_caller_has_set() -> None:
    a = np.ones(1, np.float32)
    target = ArrayTarget([a, a])
    with np.errstate(all="raise"):
        found = target.ordered([np.full(1, 3e38, np.float32)] * 2)
    assert found is not None
    assert np.isinf(found[0]).all()


def test_comparing_runs_nobodys_eq() -> None:
    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__
        counted = 0

        def __eq__(self, other: object) -> bool:
            Key.counted += 1
            return str(self) == str(other)

    tree = {Key("a"): np.ones(2), "l": {Key("b"): np.ones(2)}}
    target = ArrayTarget(tree)
    Key.counted = 0
    assert target.unchanged()
    assert target.ordered(dict(tree)) is not None
    assert Key.counted == 0
    # equal, but another object, which a parameter's path would be made of anew
    array = tree.pop(next(iter(tree)))
    rest = tree.pop("l")
    tree |= {Key("a"): array, "l": rest}
    assert not target.unchanged()


def test_what_a_tree_is_found_to_be() -> None:
    a, b = np.ones((2, 3)), np.ones((2, 3))
    tree: Any = {"a": a, "l": [b]}
    spec = TreeSpec(tree)
    assert spec.compare() == SAME
    for moved in (np.zeros((2, 3)), b):
        tree["a"] = moved
        assert spec.compare() == MOVED
    read_only = np.ones((2, 3))
    read_only.flags.writeable = False
    for other in (
        np.zeros((3, 2)),
        np.zeros((2, 3), "f4"),
        np.zeros((2, 3), ">f8"),
        np.zeros((2, 3), "i8"),
        np.zeros((2, 3), order="F"),
        np.zeros((2, 6))[:, ::2],
        np.zeros((2, 3, 1)),
        np.ma.zeros((2, 3)),
        np.zeros((2, 3)).view(type("Own", (np.ndarray,), {})),
        read_only,
        [a],
        None,
        1.0,
    ):
        tree["a"] = other
        assert spec.compare() == CHANGED, other
        assert spec.moved() is None
    tree["a"] = a
    assert spec.compare() == SAME
    tree["l"] = [b]
    assert spec.compare() == CHANGED
    with pytest.raises(TypeError, match="cannot be copied"):
        spec.__reduce__()


def test_arrays_of_one_element_along_an_axis_may_have_any_stride_there() -> None:
    tree = {"w": np.ones((3, 1, 2))}
    spec = TreeSpec(tree)
    tree["w"] = np.ones((3, 4, 2))[:, :1].copy()
    tree["w"] = np.lib.stride_tricks.as_strided(tree["w"], strides=(16, 800, 8))
    assert spec.compare() == MOVED


def test_a_tree_that_is_too_deep_is_not_noted() -> None:
    tree: Any = [np.ones(1)]
    for _ in range(100_000):
        tree = [tree]
    with pytest.raises(ValueError, match="nested deeper than 200"):
        TreeSpec(tree)
    while tree:
        # not all at once, which is deep too
        tree = tree.pop()
        if isinstance(tree, np.ndarray):
            break


def values(target: ArrayTarget) -> list[Any]:
    return [param.array for param in target.parameters.values()]


def test_arrays_that_change_places_are_taken_over() -> None:
    a, b = np.ones(2), np.zeros(2)
    tree = {"a": a, "b": b}
    target = ArrayTarget(tree)
    parameters = target.parameters
    tree |= {"a": b, "b": a}
    target.refresh()
    assert target.parameters is parameters
    for _ in range(2):
        assert all(one is two for one, two in zip(values(target), (b, a), strict=True))
        target.finish()


@pytest.mark.parametrize("view", [lambda a: a[1:], lambda a: a[::-1][1:], lambda a: a[:2]])
def test_taking_over_is_all_or_nothing(view: Any) -> None:
    tree = {"x": np.ones(2), "y": np.ones(2), "z": np.ones(3)}
    target = ArrayTarget(tree)
    before = values(target)
    held = [each.copy() for each in before]
    tree["x"] = np.full(2, 5.0)
    tree["y"] = view(tree["z"])
    with pytest.raises(ValueError, match=r"'y'.*'z'|'z'.*'y'"):
        target.refresh()
    assert all(one is two for one, two in zip(values(target), before, strict=True))
    for one, two in zip(before, held, strict=True):
        np.testing.assert_array_equal(one, two)
    tree["y"] = np.full(2, 6.0)
    target.refresh()
    assert all(one is two for one, two in zip(values(target), tree.values(), strict=True))


def test_arrays_that_are_one_from_now_on_are_tied() -> None:
    tree = {"x": np.ones(2), "y": np.ones(2), "e": np.ones(0), "f": np.ones(0)}
    target = ArrayTarget(tree)
    assert target.aliases == {}
    tree["y"] = tree["x"]
    target.refresh()
    assert target.aliases == {"y": "x"}
    tree["f"] = tree["e"]
    target.refresh()
    assert target.aliases == {"y": "x", "f": "e"}
    tree["y"] = np.ones(2)
    target.refresh()
    assert target.aliases == {"f": "e"}
    # again, where nothing but the empty ones has another array
    tree["f"] = np.ones(0)
    target.refresh()
    assert target.aliases == {}
    tree["f"] = tree["e"] = np.ones(0)
    target.refresh()
    assert target.aliases == {"f": "e"}


def test_what_a_rule_has_put_in_the_place_of_one_array_is_kept_while_another_moves() -> None:
    tree = {"a": np.zeros(2), "b": np.zeros(2)}
    a = tree["a"]
    target = ArrayTarget(tree)
    target.parameters["a"].array = np.full(2, 3.0)
    target.parameters["b"].array = np.full(2, 4.0)
    tree["b"] = np.full(2, 9.0)
    target.refresh()
    assert target.parameters["a"].array is a
    np.testing.assert_array_equal(a, np.full(2, 3.0))
    assert target.parameters["b"].array is tree["b"]
    np.testing.assert_array_equal(tree["b"], np.full(2, 9.0))
    target.parameters["a"].array = np.ones(3)
    tree["b"] = np.full(2, 8.0)
    with pytest.raises(ValueError, match=r"'a'.*\(3,\)"):
        target.refresh()
    assert target.parameters["b"].array is not tree["b"]


def test_finish_writes_back_what_was_put_in_the_place_of_arrays() -> None:
    tree = {str(i): np.zeros(2) for i in range(4)}
    target = ArrayTarget(tree)
    target.parameters["2"].array = np.full(2, 3.0)
    target.finish()
    assert target.parameters["2"].array is tree["2"]
    np.testing.assert_array_equal(tree["2"], np.full(2, 3.0))
    target.parameters["1"].array = None
    target.finish()
    assert target.parameters["1"].array is tree["1"]


def test_nothing_runs_between_the_arrays_that_are_taken_over() -> None:
    """A finalizer of an array that is replaced sees all of the new ones, or none."""
    seen = []

    class Owner:
        """Lends memory to an array, and goes with it."""

        def __init__(self) -> None:
            self.memory = np.ones(2)
            self.__array_interface__ = self.memory.__array_interface__

        def __del__(self) -> None:
            seen.append([param.array for param in target.parameters.values()])

    def view() -> np.ndarray[Any, Any]:
        return np.asarray(Owner())

    tree = {"a": view(), "b": view(), "c": view()}
    target = ArrayTarget(tree)
    new = [np.full(2, float(i)) for i in range(3)]
    tree |= dict(zip("abc", new, strict=True))
    target.refresh()
    gc.collect()
    assert len(seen) == 3
    for arrays in seen:
        assert all(one is two for one, two in zip(arrays, new, strict=True))


def test_one_array_is_always_the_same() -> None:
    w = np.ones(2)
    target = ArrayTarget(w)
    assert target.unchanged()
    target.refresh()
    assert target.ordered(w) == [w]
    spec = TreeSpec(w)
    assert spec.compare() == SAME
    assert spec.moved() == [w]


def test_updates_go_on_with_arrays_that_come_and_go() -> None:
    """Each new array may have the address of one that has gone."""
    tree = {"a": np.zeros(4), "b": np.zeros(4)}
    opt = fastadam.Adam(alpha=0.5, beta1=0.0, beta2=0.0, eps=0.0).setup(tree)
    for i in range(50):
        tree["a"] = np.full(4, float(i))
        opt.apply_gradients({"b": np.ones(4), "a": -np.ones(4)})
        np.testing.assert_allclose(tree["a"], i + 0.5, rtol=1e-15)
    assert opt.parameters["a"].update_rule.t == 50
    np.testing.assert_allclose(tree["b"], -25.0, rtol=1e-15)
