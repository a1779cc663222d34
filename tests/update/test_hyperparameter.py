"""The bag of hyperparameters with a parent, and the aliases to it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastadam import GradientMethod, Hyperparameter, HyperparameterProxy


def family() -> tuple[Hyperparameter, Hyperparameter, Hyperparameter]:
    """A grandparent, a parent and a child."""
    top = Hyperparameter()
    top.alpha, top.eta = 0.25, 1.5
    middle = Hyperparameter(top)
    middle.alpha = 0.5
    return top, middle, Hyperparameter(middle)


def test_missing_attributes_are_the_nearest_ancestors() -> None:
    top, middle, child = family()
    assert (child.alpha, child.eta) == (0.5, 1.5)
    child.eta = 2.5
    assert (child.eta, middle.eta, top.eta) == (2.5, 1.5, 1.5)
    top.eta = 3.5
    assert (child.eta, middle.eta) == (2.5, 3.5)


def test_deleting_restores_the_parents_value() -> None:
    _, middle, child = family()
    child.alpha = 9
    del child.alpha
    assert child.alpha == 0.5
    del middle.alpha
    assert child.alpha == 0.25
    with pytest.raises(AttributeError, match="alpha"):
        del middle.alpha


def test_unknown_attribute_is_an_error_that_tells_the_known_ones() -> None:
    *_, child = family()
    with pytest.raises(AttributeError, match=r"'foo'.*alpha, eta"):
        child.foo  # noqa: B018
    assert not hasattr(Hyperparameter(), "alpha")


def test_get_dict_overlays_and_is_a_copy() -> None:
    top, middle, child = family()
    child.gamma = 7
    assert child.get_dict() == {"alpha": 0.5, "eta": 1.5, "gamma": 7}
    assert middle.get_dict() == {"alpha": 0.5, "eta": 1.5}
    child.get_dict()["alpha"] = 100
    top.get_dict()["alpha"] = 100
    assert (child.alpha, top.alpha) == (0.5, 0.25)


def test_parent_is_read_only() -> None:
    top, middle, child = family()
    assert child.parent is middle
    assert top.parent is None
    with pytest.raises(AttributeError):
        child.parent = top  # type: ignore[misc]


def test_repr_is_sorted_and_complete() -> None:
    *_, child = family()
    child.beta = "x"
    assert repr(child) == "Hyperparameter(alpha=0.5, beta='x', eta=1.5)"


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_keep_the_chain(way: str) -> None:
    _, middle, child = family()
    child.gamma = 1
    if way == "pickle":
        middle2, child2 = pickle.loads(pickle.dumps([middle, child]))
    else:
        middle2, child2 = copy.deepcopy([middle, child])
    assert child2.parent is middle2
    assert child2.get_dict() == {"alpha": 0.5, "eta": 1.5, "gamma": 1}
    middle2.alpha = 8
    assert (child2.alpha, child.alpha) == (8, 0.5)


def test_shallow_copy_shares_the_parent_but_not_the_entries() -> None:
    _, middle, child = family()
    child.gamma = 1
    twin = copy.copy(child)
    twin.gamma = 2
    assert twin.parent is middle
    assert (child.gamma, twin.gamma, twin.alpha) == (1, 2, 0.5)


class Method(GradientMethod):
    rate = HyperparameterProxy("rate")


def test_proxy_gets_and_sets() -> None:
    method = Method()
    method.rate = 0.75
    assert method.hyperparam.rate == 0.75
    method.hyperparam.rate = 0.5
    assert method.rate == 0.5
    assert "rate" not in method.__dict__


def test_proxy_of_a_class_is_the_proxy_itself() -> None:
    assert isinstance(Method.rate, HyperparameterProxy)
    assert Method.rate.__doc__ == "Alias to ``self.hyperparam.rate``"


def test_proxy_of_what_was_never_set() -> None:
    assert not hasattr(Method(), "rate")


def bag(parent: Hyperparameter | None = None, **entries: object) -> Hyperparameter:
    """A bag with these entries."""
    made = Hyperparameter(parent)
    for name, value in entries.items():
        setattr(made, name, value)
    return made


def test_equality_is_by_the_values_in_effect() -> None:
    top = bag(alpha=0.5, eta=1)
    assert top == bag(eta=1, alpha=0.5)
    assert top == bag(bag(alpha=9, eta=1), alpha=0.5)
    assert top == Hyperparameter(top)
    assert top != bag(alpha=0.5, eta=2)
    assert top != bag(alpha=0.5)
    assert bag(alpha=0.5) != top
    assert top != bag(alpha=0.5, eta=1, gamma=1)
    assert Hyperparameter() == Hyperparameter()


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (0.5, np.float32(0.5), True),
        (0.5, np.array(0.5, "f2"), True),
        (np.float32(0.1), np.float64(np.float32(0.1)), True),
        (np.float32(0.1), 0.1, False),
        (np.longdouble(1) / 3, 1 / 3, False),
        (1, True, True),
        (1, np.array(True), True),
        (2**53 + 1, float(2**53), False),
        (np.nan, np.array(np.nan, "f4"), True),
        (np.nan, 0.0, False),
        (0.0, -0.0, True),
        ("hat", "hat", True),
        ("hat", "paper", False),
        ("hat", 1.0, False),
        (None, None, True),
        (None, 0, False),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan], "f4"), True),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), False),
        (np.array([1.0, 1.0]), np.array([1.0]), False),
        (np.array([1.0]), 1.0, False),
        (np.array(["a", "b"]), np.array(["a", "b"]), True),
    ],
)
def test_values_are_compared_whatever_their_type(a: object, b: object, equal: bool) -> None:
    assert (bag(x=a) == bag(x=b)) == equal
    assert (bag(x=b) == bag(x=a)) == equal
    assert (bag(x=a) != bag(x=b)) == (not equal)
    assert bag(x=a) == bag(x=a)


class OtherBag(Hyperparameter):
    pass


@pytest.mark.parametrize("other", [None, 1, {"alpha": 0.5}, OtherBag()])
def test_other_types_are_not_equal(other: object) -> None:
    mine = bag(alpha=0.5)
    assert mine.__eq__(other) is NotImplemented
    assert mine != other
    assert other != mine


def test_a_bag_can_be_hashed_and_keeps_its_hash() -> None:
    mine = bag(alpha=0.5)
    before = hash(mine)
    names = {mine: "mine"}
    mine.alpha = 1
    assert hash(mine) == before == hash(Hyperparameter())
    assert names[bag(alpha=1)] == "mine"
    assert hash(OtherBag()) != before
