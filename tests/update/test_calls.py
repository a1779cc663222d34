"""How many functions of the package an update calls: as many with 200 parameters as with 6."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from python_calls import count_calls

import fastadam
from fastadam import Adam
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

# What an update may call with nothing around it, and with anything of what follows.
PLAIN, OTHERS = 33, 60


def same(params: Any, grads: Any) -> tuple[Any, Any]:
    return params, grads


def nothing(*_: object) -> None:
    pass


def apply(opt: Adam, grads: Any) -> None:
    opt.apply_gradients(grads)


class Case(NamedTuple):
    """An update with something about it, step by step of what leads there.

    `arrays` makes a target and gradients of two dicts, `ready` is called after setup, `before`
    with the target before each update, and `update` makes it.
    """

    arrays: Callable[[Any, Any], tuple[Any, Any]] = same
    ready: Callable[[Adam, Any], object] = nothing
    before: Callable[[Any], object] = nothing
    update: Callable[[Adam, Any], object] = apply


def nested(params: Any, grads: Any) -> tuple[Any, Any]:
    """Dicts and lists of two arrays each."""

    def pairs(flat: Any) -> Any:
        keys = list(flat)
        return {
            a: {"W": flat[a], "b": [flat[b]]} for a, b in zip(keys[::2], keys[1::2], strict=True)
        }

    return pairs(params), pairs(grads)


def tied(params: Any, grads: Any) -> tuple[Any, Any]:
    return {**params, "again": params["p0"]}, {**grads, "again": grads["p0"]}


def scalar(params: Any, grads: Any) -> tuple[Any, Any]:
    return {**params, "scale": np.array(1, np.float32)}, {**grads, "scale": 0.5}


def strided(params: Any, grads: Any) -> tuple[Any, Any]:
    return {**params, "p1": np.zeros((3, 4), np.float32)[:, ::2]}, grads


def with_gradient(change: Callable[[Any], Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """One gradient of the others' kind is made another."""
    return lambda params, grads: (params, {**grads, "p1": change(grads["p1"])})


def with_hooks(*hooks: Any) -> Callable[[Adam, Any], None]:
    def add(opt: Adam, _: Any) -> None:
        for hook in hooks:
            opt.add_hook(hook)

    return add


def schedule(opt: Any) -> None:
    opt.alpha = 0.001 / (1 + opt.t)


def give(opt: Adam, grads: Any) -> None:
    for path, param in opt.parameters.items():
        param.grad = grads[path]


def freeze(opt: Adam, _: Any) -> None:
    opt.parameters["p1"].update_rule.enabled = False


def own_alphas(opt: Adam, _: Any) -> None:
    for i, path in enumerate(opt.parameters):
        opt.set_hyperparam(path, alpha=0.01 / (i + 1))


def bound_alphas(opt: Adam, grads: Any) -> None:
    opt.adabound = True
    own_alphas(opt, grads)


def scheduled_alphas(opt: Adam, grads: Any) -> None:
    own_alphas(opt, grads)
    opt.add_hook(lambda opt: setattr(opt, "alpha", 0.001 / (1 + opt.t)), "schedule")


def rebind(params: Any) -> None:
    for key, array in params.items():
        params[key] = array.copy()


CASES = {
    "plain": Case(),
    "own gradients": Case(ready=give, update=lambda opt, _: opt.update()),
    "a 'post' hook": Case(ready=lambda opt, _: opt.add_hook(nothing, "seen", "post")),
    "a schedule": Case(ready=with_hooks(schedule)),
    "weight decay": Case(ready=with_hooks(WeightDecay(1e-4))),
    "clipping": Case(ready=with_hooks(GradientClipping(0.5))),
    "decay and clipping": Case(ready=with_hooks(WeightDecay(1e-4), GradientClipping(0.5))),
    "monitor": Case(ready=lambda opt, _: setattr(opt, "monitor", True)),
    "a dynamic loss scale": Case(
        ready=lambda opt, _: opt.loss_scaling(),
        update=lambda opt, grads: opt.apply_gradients(grads, loss_scale=opt.loss_scale),
    ),
    "a frozen parameter": Case(ready=freeze),
    "a rule's hook": Case(
        ready=lambda opt, _: opt.parameters["p1"].update_rule.add_hook(nothing, "seen")
    ),
    "a rule's alpha": Case(ready=lambda opt, _: opt.set_hyperparam("p1", alpha=0.01)),
    "an alpha for each": Case(ready=own_alphas),
    "an alpha for each, and bounds": Case(ready=bound_alphas),
    "an alpha for each, and a schedule": Case(ready=scheduled_alphas),
    "another optimizer": Case(before=lambda _: Adam().setup({"w": np.zeros(2)})),
    "nested dicts": Case(nested),
    "ordered dicts": Case(lambda params, grads: (OrderedDict(params), OrderedDict(grads))),
    "a tied array": Case(tied),
    "a gradient of None": Case(with_gradient(lambda _: None)),
    "a scalar gradient": Case(scalar),
    "a float64 gradient": Case(with_gradient(lambda g: g.astype(np.float64))),
    "a gradient of another byte order": Case(with_gradient(lambda g: g.astype(">f4"))),
    "a gradient in Fortran's order": Case(with_gradient(np.asfortranarray)),
    "a broadcast gradient": Case(with_gradient(lambda g: np.broadcast_to(np.float32(1), g.shape))),
    "a strided parameter": Case(strided),
    "arrays rebound": Case(before=rebind),
}


def calls_of(case: Case, n: int, shape: tuple[int, int] = (3, 2)) -> int:
    """Return how many calls the sixth update of so many parameters makes."""
    rng = np.random.default_rng(n)
    flat, given = (
        {f"p{i}": rng.standard_normal(shape).astype(np.float32) for i in range(n)} for _ in range(2)
    )
    params, grads = case.arrays(flat, given)
    opt = Adam().setup(params)
    case.ready(opt, grads)
    for _ in range(5):
        case.before(params)
        case.update(opt, grads)
    case.before(params)
    # nothing is asked of the optimizer in between, which would look at the target again
    counted = count_calls(lambda: case.update(opt, grads))
    paths = [path for path, param in opt.parameters.items() if param.update_rule.enabled]
    # the update that was counted is one of all parameters
    assert opt.t == 6
    assert opt.last_update.applied == tuple(paths)
    assert {opt.parameters[path].update_rule.t for path in paths} == {6}
    return counted


def test_what_is_counted() -> None:
    param = fastadam.Parameter(np.ones(2))
    # the property, and nothing of Python's own or of what is compiled
    assert count_calls(lambda: (len([]), param.grad)) == 1
    assert count_calls(lambda: nothing()) == 0


def test_calls_of_an_update_on_several_threads() -> None:
    # of any number of elements, but for the control group's quota, which is read each second
    assert calls_of(CASES["plain"], 6) == calls_of(CASES["plain"], 6, (300, 200))


@pytest.mark.parametrize("name", CASES)
def test_calls_of_an_update(name: str) -> None:
    few, many = (calls_of(CASES[name], n) for n in (6, 200))
    assert few == many
    assert 0 < few <= (PLAIN if name == "plain" else OTHERS)
