"""Parameters with an `update` of their own, and without gradients, in both libraries."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

KINDS = ("Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound")


def clipped(library: Any) -> type[Any]:
    """Return a class of parameters that no update moves beyond 0.5."""

    class Clipped(library.Parameter):  # type: ignore[misc, name-defined]
        calls = 0

        def update(self) -> None:
            self.calls += 1
            super().update()
            if self.array is not None:
                np.clip(self.array, -0.5, 0.5, out=self.array)

    return Clipped


def clip_itself(param: Any) -> Any:
    """Let an object's update clip."""
    whole = param.update

    def update() -> None:
        param.calls = getattr(param, "calls", 0) + 1
        whole()
        np.clip(param.array, -0.5, 0.5, out=param.array)

    param.update = update
    return param


def run(library: Any, optimizers: Any, kind: str, on_object: bool, hook: Any) -> list[Any]:
    """Train a link with a clipping parameter and a plain one; return all that there was."""
    if on_object and library.is_ours:
        # ours have slots
        base = type("WithAttributes", (library.Parameter,), {})
        param = clip_itself(base(np.array([1, 0.2], "f4")))
    elif on_object:
        param = clip_itself(library.Parameter(np.array([1, 0.2], "f4")))
    else:
        param = clipped(library)(np.array([1, 0.2], "f4"))
    link = library.Link()
    with link.init_scope():
        link.w, link.b = param, library.Parameter(np.ones(3, "f4"))
    opt = getattr(optimizers, kind)(alpha=0.1).setup(link)
    if hook is not None:
        opt.add_hook(hook())
    found = []
    for t in range(6):
        link.w.update_rule.enabled = t != 3
        for each in link.params():
            each.grad = np.full_like(each.array, 1 + t)
        opt.update()
        found += [link.w.array.tolist(), link.b.array.tolist(), link.w.calls]
        found += [link.w.update_rule.t, link.b.update_rule.t, opt.t]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_object", [False, True])
def test_an_update_of_ones_own(library: Any, kind: str, on_object: bool) -> None:
    """The numbers are Chainer's, with ours on Chainer's parameters, too."""
    ours = importlib.import_module("fastadam.optimizers")
    expected = run(library, library.optimizers, kind, on_object, None)
    assert expected[2::6] == [1, 2, 3, 4, 5, 6]
    assert expected[3::6] == [1, 2, 3, 3, 4, 5]
    assert max(abs(x) for values in expected[0::6] for x in values) == 0.5
    assert run(library, ours, kind, on_object, None) == expected
    hook = importlib.import_module("fastadam.optimizer_hooks").GradientClipping
    assert run(library, ours, kind, on_object, lambda: hook(1e9)) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_hook", [False, True])
def test_a_missing_gradient_that_stays_missing(library: Any, kind: str, with_hook: bool) -> None:
    """Chainer: t is 1, the state zeros; the file can be loaded."""
    whole = getattr(library.optimizers, kind)
    unfilled = type(kind, (whole,), {"reallocate_cleared_grads": lambda self: None})

    def trained() -> tuple[Any, Any]:
        link = library.link(w=np.ones(2, "f4"), b=np.ones(3, "f4"))
        opt = unfilled(alpha=0.1).setup(link)
        if with_hook:
            for param in link.params():
                param.update_rule.add_hook(lambda rule, param: None, "nothing")
        return link, opt

    link, opt = trained()
    link.w.grad = np.ones(2, "f4")
    link.b.cleargrad()
    opt.update()
    rule = link.b.update_rule
    assert rule.t == 1
    assert sorted(rule.state) == (["m", "v", "vhat"] if opt.amsgrad else ["m", "v"])
    assert not any(value.any() for value in rule.state.values())
    assert link.b.array.tolist() == [1, 1, 1]
    file = library.save(opt)
    assert set(np.load(file).files) >= {"b/t", "b/m", "b/v", "w/t", "w/m", "w/v"}
    file.seek(0)
    _, other = trained()
    library.load(file, other)
    assert [p.update_rule.t for p in other.target.params()] == [1, 1]
