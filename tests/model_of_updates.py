"""What an update is, in a few lines of NumPy: the model beside which random programs are run.

It keeps nothing from one update to the next but what an optimizer is said to keep: state, master
and count of every parameter, its own count, and the loss scale.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any
F16, F32, F64 = (np.dtype(name) for name in ("f2", "f4", "f8"))


class Refused(Exception):
    """The update is refused: nothing has changed."""


class Entry:
    """What is kept of one parameter."""

    def __init__(self) -> None:
        self.t = 0
        self.state: dict[str, Array] | None = None
        self.master: Array = None
        self.enabled = True
        self.own: dict[str, Any] = {}
        self.hooks: list[str] = []


def computing(dtype: Any) -> Any:
    """The dtype that a step is made in."""
    return F64 if dtype == F64 else F32


def squares(g: Array) -> float:
    """The sum of squares in the defined order: a tree of chunks, lanes that fold by halves."""
    flat = g.ravel(order="K").astype(F64)
    chunks = []
    for begin in range(0, flat.size, 4096):
        chunk = flat[begin : begin + 4096]
        lanes = np.zeros(256)
        for row in range(0, chunk.size, 256):
            part = chunk[row : row + 256]
            lanes[: part.size] += part * part
        while lanes.size > 1:
            lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
        chunks.append(float(lanes[0]))
    return tree(chunks)


def tree(numbers: list[float]) -> float:
    """Add in the defined order: the left part is the greatest full tree of which more is left."""
    if len(numbers) < 2:
        return numbers[0] if numbers else 0.0
    left = 1 << (len(numbers) - 1).bit_length() - 1
    return tree(numbers[:left]) + tree(numbers[left:])


def norm_of(gs: list[Array]) -> float:
    """The common norm; finite for finite gradients whose squares are not."""
    total = tree([squares(g) for g in gs])
    if total == math.inf and all(np.isfinite(g).all() for g in gs):
        largest = max(float(abs(g).max()) for g in gs if g.size)
        return largest * norm_of([g.astype(F64) / largest for g in gs])
    return math.sqrt(total)


class Model:
    """An optimizer's numbers. Parameters are pairs of an entry and an array that is written."""

    def __init__(self, hyperparam: dict[str, Any]) -> None:
        self.h = dict(hyperparam)
        self.t = 0
        self.hooks: list[str] = []
        self.fp32 = False
        self.on_nonfinite = "propagate"
        self.scale: float | None = None
        self.dynamic = self.ever = False
        self.multiplier = 1.0
        self.skipped = False

    def update(
        self,
        params: list[tuple[Entry, Array]],
        grads: list[Array],
        scale: float | None = None,
    ) -> None:
        """Make one update; a gradient of None is zeros."""
        with np.errstate(all="ignore"):
            self._update(params, grads, scale)

    def _update(self, params: Any, grads: Any, scale: float | None) -> None:
        rows = []
        for (entry, p), given in zip(params, grads, strict=True):
            T = computing(p.dtype)  # noqa: N806
            g = np.zeros_like(p) if given is None else np.asarray(given)
            # a half-precision gradient of a half-precision parameter stays one in hooks
            half = p.dtype == F16 and g.dtype.newbyteorder("=") == F16 and scale is None
            # Sums are in the order of memory. What hooks get is a copy in the parameter's layout,
            # or a quotient in that of the gradient, in C order where this has gaps.
            whole = g.flags.c_contiguous or g.flags.f_contiguous
            g = g.astype(g.dtype.newbyteorder("="), order="K" if whole else "C")
            if scale is None:
                g, as_given = np.empty_like(p, g.dtype), g
                g[...] = as_given
            if scale is not None:
                # what is wider than float64 is divided in that
                wide = T if g.dtype == F16 or g.dtype.itemsize <= T.itemsize else F64
                g = g.astype(wide) / wide.type(scale)
            rows.append((entry, p, g.astype(T), half))
        live = [row for row in rows if row[0].enabled]
        bad = any(not np.isfinite(g * g).all() for _, _, g, _ in live)
        gs = [g for _, _, g, _ in live]
        for hook in self.hooks:
            gs = self._hook(hook, live, gs)
        if bad and self.on_nonfinite == "raise" and not self.dynamic:
            raise Refused
        self.skipped = bad and (self.dynamic or self.on_nonfinite == "skip")
        fits = [
            a.shape == p.shape and a.dtype == computing(p.dtype)
            for entry, p, _, _ in live
            for a in (entry.state or {}).values()
        ]
        if not self.skipped and not all(fits):
            raise Refused
        self.t += 1
        if not self.skipped:
            for (entry, p, _, half), g in zip(live, gs, strict=True):
                self._step(entry, p, g, half)
        if self.dynamic:
            assert self.scale is not None
            self.ever |= bad
            factor = 0.5 if bad else self.multiplier if self.ever else 2.0
            self.scale = max(1.0, min(65504.0, self.scale * factor))

    def _hook(self, hook: str, live: Any, gs: list[Array]) -> list[Array]:
        """Change the gradients as one of the optimizer's hooks does."""
        if hook == "alpha":
            self.h["alpha"] *= 0.75
        rate = 1.0
        if hook == "clip":
            norm = norm_of(gs)
            rate = 2.0 / norm if 2.0 < norm < math.inf else 1.0
        changed = []
        for (_, p, _, half), g in zip(live, gs, strict=True):
            changed.append(self._changed(hook, p.astype(g.dtype), g, rate, half))
        return changed

    @staticmethod
    def _changed(hook: str, p: Array, g: Array, rate: float, half: bool) -> Array:
        T = g.dtype.type  # noqa: N806
        new = {
            "decay": lambda: g + T(0.25) * p,
            "lasso": lambda: g + T(0.125) * np.sign(p),
            "hard": lambda: np.clip(g, T(-1.5), T(1.5)),
            "clip": lambda: g * T(rate),
            "halve": lambda: g * T(0.5),
        }.get(hook, lambda: g)()
        changed = np.empty_like(g)
        changed[...] = new.astype(F16) if half else new
        return changed

    def _step(self, entry: Entry, param: Array, g: Array, half: bool) -> None:
        """The formula."""
        h = {**self.h, **entry.own}
        T = computing(param.dtype)  # noqa: N806
        p = param.astype(T)
        mastered = self.fp32 and param.dtype == F16
        if mastered and entry.master is not None:
            written = entry.master.astype(F16).view(np.uint16) != param.view(np.uint16)
            p = np.where(written, p, entry.master)
        for hook in entry.hooks:
            g = self._changed(hook, p, g, 1.0, half and not mastered)
        if entry.state is None:
            entry.state = {key: np.zeros_like(p) for key in ("m", "v")}
        state = entry.state
        if h["amsgrad"] and "vhat" not in state:
            state["vhat"] = np.zeros_like(p)
        entry.t += 1
        one = T.type
        root = math.sqrt(1 - h["beta2"] ** entry.t)
        alpha_t = h["alpha"] * root / (1 - h["beta1"] ** entry.t)
        state["m"] = state["m"] + one(1 - h["beta1"]) * (g - state["m"])
        state["v"] = state["v"] + one(1 - h["beta2"]) * (g * g - state["v"])
        v = state["v"]
        if h["amsgrad"]:
            v = state["vhat"] = np.maximum(state["vhat"], v)
        step = one(alpha_t) / (np.sqrt(v) + one(h["eps"]))
        decay = h["eta"] * h["weight_decay_rate"]
        p = one(1 - decay) * p - one(h["eta"]) * (step * state["m"])
        p = np.asarray(p, T)
        if mastered:
            entry.master = p
        param[...] = p.astype(param.dtype)
