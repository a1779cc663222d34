"""A parameter list for an optimizer of this library, and an equal one for PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

import fastadam.torch

KINDS = ["Adam", "AdamW"]
SHAPES = [(3, 4), (7,), (), (2, 3, 4, 5)]


def _takes_names() -> bool:
    """Whether this PyTorch takes named parameters, as 2.6 and newer do."""
    try:
        torch.optim.Adam([("p", torch.nn.Parameter(torch.ones(1)))])
    except TypeError:
        return False
    return True


TAKES_NAMES = _takes_names()


def named(pairs: Iterable[tuple[str, torch.Tensor]]) -> list[Any]:
    """Named parameters, or in an older PyTorch a group that has their names."""
    found = list(pairs)
    if TAKES_NAMES:
        return found
    return [{"params": [p for _, p in found], "param_names": [name for name, _ in found]}]


class Pair:
    """Two optimizers on equal parameters: this library's first, then PyTorch's."""

    def __init__(self, kind: str, values: list[torch.Tensor], **options: Any) -> None:
        self.params = [
            [
                torch.nn.Parameter(value.clone(memory_format=torch.preserve_format))
                for value in values
            ]
            for _ in range(2)
        ]
        own = {key: options.pop(key) for key in list(options) if key in ("named",)}
        lists: list[Any] = self.params
        if own.get("named"):
            lists = [named((f"w{i}", p) for i, p in enumerate(params)) for params in self.params]
        self.ours = getattr(fastadam.torch, kind)(lists[0], **options)
        self.theirs = getattr(torch.optim, kind)(lists[1], **options)

    @property
    def both(self) -> list[tuple[Any, list[torch.nn.Parameter]]]:
        return list(zip((self.ours, self.theirs), self.params, strict=True))

    def gradients(self, scale: float = 1.0) -> None:
        for p, q in zip(*self.params, strict=True):
            q.grad = torch.randn_like(q) * scale
            p.grad = q.grad.clone(memory_format=torch.preserve_format)

    def step(self, scale: float = 1.0) -> None:
        self.gradients(scale)
        for opt, _ in self.both:
            opt.step()

    def check(self, tolerance: float = 1e-6) -> None:
        for p, q in zip(*self.params, strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
            ours, theirs = self.ours.state.get(p), self.theirs.state.get(q)
            assert bool(ours) == bool(theirs)
            for key, value in (theirs or {}).items():
                torch.testing.assert_close(
                    ours[key].to(value.dtype), value, rtol=tolerance, atol=tolerance
                )


def values(*dtypes: torch.dtype) -> list[torch.Tensor]:
    """Tensors of several shapes, of each dtype."""
    return [torch.randn(shape, dtype=dtype) for dtype in dtypes for shape in SHAPES]


def snapshot(opt: Any) -> list[Any]:
    """Copies of all that a step may change."""
    found: list[Any] = []
    for group in opt.param_groups:
        found.append({key: value for key, value in group.items() if key != "params"})
        for p in group["params"]:
            found.append(p.detach().clone())
            found.append(None if p.grad is None else p.grad.clone())
            state = opt.state.get(p)
            found.append(
                state
                and {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
            )
    return found


def same(a: Any, b: Any) -> bool:
    """Tell whether two snapshots are equal."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def slack_of_a_step(
    theirs: torch.Tensor, before: torch.Tensor, eps: float, lr: float
) -> torch.Tensor:
    """Return how far each element may be from PyTorch's: 4 ULP of the larger of it and its step.

    Where decay and gradient cancel, both round what is left.
    """
    size = torch.maximum(theirs.detach().abs(), (theirs.detach() - before).abs())
    return 4 * eps * size + 8 * eps * lr
