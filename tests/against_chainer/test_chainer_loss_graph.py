"""What an update keeps alive of the computation that it was made from."""

from __future__ import annotations

import importlib
import weakref
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("how", ["backward", "pair"])
def test_the_graph_is_gone_before_hooks_run(library: Any, scaled: bool, how: str) -> None:
    """Activations are not held through hooks and the step, with ours on Chainer's links, too."""
    chainer = pytest.importorskip("chainer", exc_type=(ImportError, AttributeError))
    ours = importlib.import_module("fastadam.optimizers")
    if not library.is_ours:
        # Chainer takes no pairs
        how = "backward"
    link = chainer.Link()
    with link.init_scope():
        link.w = chainer.Parameter(np.ones(5, np.float32))
    optimizers = ours if library.is_ours else library.optimizers
    opt = optimizers.Adam().setup(link)
    if scaled:
        opt.set_loss_scale(8.0)
    kept: list[Any] = []
    seen: list[bool] = []

    def loss(x: np.ndarray) -> Any:
        h = chainer.functions.exp(link.w * x)
        kept[:] = [weakref.ref(h.array), weakref.ref(h.node)]
        total = chainer.functions.sum(h)
        if how == "backward":
            return total
        link.cleargrads()
        total.backward()
        return total, {"w": link.w.grad}

    def look(_: Any) -> None:
        seen.append(any(ref() is not None for ref in kept))

    opt.add_hook(look, "before", timing="pre")
    opt.add_hook(look, "after", timing="post")
    for _ in range(3):
        w, x = link.w.array.copy(), np.arange(5, dtype=np.float32)
        result = opt.update(loss, x)
        assert [ref() for ref in kept] == [None, None]
        if library.is_ours:
            # the value is returned, as a variable of the same class
            np.testing.assert_allclose(result.array, np.exp(w * x).sum(), rtol=1e-6)
            assert type(result) is chainer.Variable
            assert result.creator is None
        else:
            assert result is None
    assert seen == [False] * 6


def test_who_keeps_the_loss_keeps_its_graph() -> None:
    """As extensions do that draw it."""
    chainer = pytest.importorskip("chainer", exc_type=(ImportError, AttributeError))
    link = chainer.Link()
    with link.init_scope():
        link.w = chainer.Parameter(np.ones(2, np.float32))
    opt = importlib.import_module("fastadam").Adam().setup(link)
    kept: list[Any] = []

    def loss() -> Any:
        kept.append(chainer.functions.sum(link.w * link.w))
        return kept[-1]

    result = opt.update(loss)
    assert kept[0].creator is not None
    assert result is not kept[0]
    assert result.array is kept[0].array


def test_losses_of_others_are_returned_as_they_are() -> None:
    fastadam = importlib.import_module("fastadam")
    link = fastadam.Link(w=2)

    class Loss:
        def backward(self, loss_scale: float | None = None) -> None:
            link.w.grad = np.ones(2, np.float32)

    opt = fastadam.Adam().setup(link)
    loss = Loss()
    assert opt.update(lambda: loss) is loss
    assert opt.update(lambda: (loss, {"w": np.ones(2)})) is loss
