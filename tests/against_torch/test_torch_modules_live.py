"""A module as a target, beside autograd, the garbage collector and the compiler."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fastadam
from fastadam.optimizer_hooks import GradientClipping, WeightDecay


def versions(*tensors: Any) -> list[int]:
    return [tensor._version for tensor in tensors]


@pytest.mark.parametrize("how", ["set up", "updated", "hooked", "refused", "loss"])
def test_nothing_waits_for_the_garbage_collector(how: str) -> None:
    module = torch.nn.Linear(3, 2)
    opt = fastadam.Adam().setup(module)
    if how == "hooked":
        opt.add_hook(lambda o: None, name="nothing")
        opt.add_hook(GradientClipping(1.0))
    gc.disable()
    try:
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        if how in ("updated", "hooked"):
            opt.update()
            opt.update()
        elif how == "loss":
            opt.update(lambda: module(torch.ones(3)).sum())
        elif how == "refused":
            module.bias.grad = torch.full((2,), torch.nan)
            opt.on_nonfinite = "raise"
            with pytest.raises(FloatingPointError):
                opt.update()
        left = weakref.ref(module)
        del module, opt, p
        assert left() is None
    finally:
        gc.enable()
