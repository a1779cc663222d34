"""The bag of hyperparameters with a parent, and the aliases to it."""

from __future__ import annotations

import copy
import pickle

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


def test_version_changes_with_every_change_in_the_chain() -> None:
    top, middle, child = family()
    seen = {child.version}
    for change in (
        lambda: setattr(top, "eta", 4),
        lambda: setattr(middle, "eta", 4),
        lambda: setattr(child, "eta", 4),
        lambda: setattr(child, "eta", 4.5),
        lambda: delattr(child, "eta"),
        lambda: delattr(middle, "eta"),
        lambda: delattr(top, "eta"),
    ):
        change()
        assert child.version not in seen
        seen.add(child.version)


def test_version_is_shared_by_bags_without_own_entries_only() -> None:
    top, middle, child = family()
    sibling = Hyperparameter(middle)
    assert child.version == sibling.version
    sibling.alpha = 0.5
    assert child.version != sibling.version
    assert Hyperparameter(top).version != child.version


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_keep_the_chain(way: str) -> None:
    _, middle, child = family()
    child.gamma = 1
    before = child.version
    if way == "pickle":
        middle2, child2 = pickle.loads(pickle.dumps([middle, child]))
    else:
        middle2, child2 = copy.deepcopy([middle, child])
    assert child2.parent is middle2
    assert child2.get_dict() == {"alpha": 0.5, "eta": 1.5, "gamma": 1}
    middle2.alpha = 8
    assert (child2.alpha, child.alpha) == (8, 0.5)
    assert child2.version != child.version == before


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
