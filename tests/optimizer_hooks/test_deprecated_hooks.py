"""The names that five hooks have in fastadam.optimizer: they warn once, and are the hooks."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import optimizer, optimizer_hooks

ARGUMENTS: dict[str, dict[str, Any]] = {
    "WeightDecay": {"rate": 0.5},
    "Lasso": {"rate": 0.25},
    "GradientClipping": {"threshold": 2.5},
    "GradientHardClipping": {"lower_bound": -1, "upper_bound": 3.5},
    "GradientNoise": {"eta": 0.1},
}
every_name = pytest.mark.parametrize("name", ARGUMENTS)


def made(name: str, *args: Any, **kwds: Any) -> Any:
    """Make the hook, without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(optimizer, name)(*args, **kwds)


@every_name
@pytest.mark.parametrize("positional", [False, True])
def test_one_warning_that_points_here(name: str, positional: bool) -> None:
    cls = getattr(optimizer, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if positional:
            cls(*ARGUMENTS[name].values())
        else:
            cls(**ARGUMENTS[name])
    assert [(one.category, one.filename) for one in caught] == [(DeprecationWarning, __file__)]
    message = str(caught[0].message)
    assert f"fastadam.optimizer.{name} is deprecated" in message
    assert f"fastadam.optimizer_hooks.{name}" in message


@every_name
def test_it_is_the_hook(name: str) -> None:
    old, new = made(name, **ARGUMENTS[name]), getattr(optimizer_hooks, name)(**ARGUMENTS[name])
    assert isinstance(old, type(new))
    assert type(old) is not type(new)
    assert vars(old) == vars(new)
    for attribute in ("name", "timing", "call_for_each_param"):
        assert getattr(old, attribute, None) == getattr(new, attribute, None)


@every_name
def test_it_does_what_the_hook_does(name: str) -> None:
    arrays = []
    for hook in (made(name, **ARGUMENTS[name]), getattr(optimizer_hooks, name)(**ARGUMENTS[name])):
        w = np.array([1.0, -1.0])
        opt = fastadam.Adam(alpha=0.125, eps=0.5).setup({"w": w})
        opt.add_hook(hook)
        np.random.seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                opt.apply_gradients({"w": np.array([3.0, 4.0])})
        opt.remove_hook(name)
        arrays.append(w)
    np.testing.assert_array_equal(*arrays)


@every_name
def test_copies_do_not_warn_again(name: str) -> None:
    old = made(name, **ARGUMENTS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (copy.deepcopy(old), pickle.loads(pickle.dumps(old))):
            assert type(other) is type(old)
            assert vars(other) == vars(old)


def test_wrong_arguments_are_refused_as_by_the_hooks() -> None:
    with pytest.raises(ValueError, match="below 0"):
        made("GradientClipping", -1)
    with pytest.raises(TypeError, match="rate"):
        made("WeightDecay")


def test_which_names_there_are() -> None:
    """Chainer never had GradientLARS there."""
    hooks = {name for name in optimizer_hooks.__all__ if name in optimizer.__all__}
    assert hooks == set(ARGUMENTS)
    assert not hasattr(optimizer, "GradientLARS")
    for name in hooks:
        assert getattr(optimizer, name).__doc__.startswith("Deprecated name of")
