"""Comparisons beside Chainer's: what each library answers, and what compare says of both."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.comparison.compare import compare
from fastadam.comparison.differences import Absent
from fastadam.update.snapshot import snapshot

chainer: Any = None
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports modules that are out of date
        chainer = importlib.import_module("chainer")
except (ImportError, AttributeError):
    pass  # not there, or not on this NumPy

needs_chainer = pytest.mark.skipif(chainer is None, reason="Chainer cannot be imported here")
LIBRARIES = [
    pytest.param(fastadam, id="fastadam"),
    pytest.param(chainer, id="chainer", marks=needs_chainer),
]


def trained(library: Any, steps: int = 3, make: Callable[[Any], Any] | None = None) -> Any:
    """Return an optimizer that has trained a link of its library."""
    rng = np.random.default_rng(0)
    link = library.Link()
    with link.init_scope():
        link.W = library.Parameter(rng.standard_normal((2, 3)).astype("f4"))
        link.b = library.Parameter(rng.standard_normal(3))
    kind = library.optimizers.AMSGrad if make is None else make
    opt = kind(alpha=0.1).setup(link)
    for _ in range(steps):
        for name in ("W", "b"):
            param = getattr(link, name)
            param.grad = rng.standard_normal(param.shape).astype(param.dtype)
        opt.update()
    return opt


@pytest.mark.parametrize("library", LIBRARIES)
def test_optimizers_are_equal_by_value(library: Any) -> None:
    assert (trained(library) == trained(library)) == (library is fastadam)


@pytest.mark.parametrize("library", LIBRARIES)
def test_optimizers_have_an_order(library: Any) -> None:
    earlier, later = trained(library, 2), trained(library, 3)
    if library is fastadam:
        assert earlier < later
    else:
        with pytest.raises(TypeError):
            earlier < later  # noqa: B015


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_hash_of_an_optimizer_is_its_classs(library: Any) -> None:
    assert (hash(trained(library)) == hash(trained(library))) == (library is fastadam)


@pytest.mark.parametrize("library", LIBRARIES)
def test_hyperparameters_are_equal_by_value(library: Any) -> None:
    kind = fastadam.Hyperparameter
    if library is not fastadam:
        kind = library.optimizer.Hyperparameter
    bags = [kind(), kind()]
    for bag in bags:
        bag.alpha = 0.5
    assert (bags[0] == bags[1]) == (library is fastadam)


@needs_chainer
def test_the_libraries_do_not_equal_each_other() -> None:
    ours, theirs = trained(fastadam), trained(chainer)
    assert ours != theirs
    assert ours.hyperparam != theirs.hyperparam
    with pytest.raises(TypeError):
        ours < theirs  # noqa: B015


# What one library has and the other has not.
OURS_ALONE = {"hyperparam.eps_mode", "hyperparam.decay_mode", "on_nonfinite"}


@needs_chainer
def test_compare_takes_an_optimizer_of_each() -> None:
    ours, theirs = trained(fastadam), trained(chainer)
    shared = [d for d in compare(theirs, ours) if d.what not in OURS_ALONE]
    assert [(d.where, d.what) for d in shared] == [("", "class"), ("W", "rule"), ("b", "rule")]
    assert compare(theirs, snapshot(theirs)).equal
    ours.eps_mode = "paper"
    (found,) = [d for d in compare(theirs, ours) if d.what == "hyperparam.eps_mode"]
    assert (found.a, found.b) == (Absent.ABSENT, "paper")
    theirs.add_hook(lambda opt: None, "x", timing="post")
    theirs.target.W.update_rule.add_hook(lambda rule, param: None, "y")
    theirs.target.b.update_rule.hyperparam.eta = 0.5
    theirs.target.W.update_rule.state["v"][1, 0] = 7
    places = {(d.where, d.what): d for d in compare(theirs, ours)}
    assert places["", "hooks"].a == ("post x",)
    assert places["W", "rule.hooks"].a == ("pre y",)
    assert places["b", "hyperparam.eta"].a == 0.5
    assert places["W", "v"].first_index == (1, 0)


@needs_chainer
def test_chainers_models_and_rules_are_compared() -> None:
    def mixed(steps: int) -> Any:
        opt = trained(chainer, 0, fastadam.Adam)
        rule = chainer.optimizers.sgd.SGDRule(lr=0.5)
        opt.target.b.update_rule = rule
        for _ in range(steps):
            for param in opt.target.params():
                param.grad = np.ones_like(param.array)
            opt.update()
        return opt

    a, b = mixed(2), mixed(2)
    assert a == b
    assert a < mixed(3)
    assert compare(a.target, b.target).equal
    b.target.b.update_rule.hyperparam.lr = 0.25
    assert a != b
    assert [(d.where, d.what) for d in compare(a, b)] == [("b", "hyperparam.lr")]
    a.target.b.update_rule.hyperparam.lr = 0.25
    assert a == b
    b.target.b.update_rule.add_hook(lambda rule, param: None, "hook")
    assert a != b
