"""The steps of random programs, done to an optimizer and to the model."""

from __future__ import annotations

import copy
import io
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_of_updates import Entry, Model, Refused, computing
from program_targets import Trained

import fastadam
from fastadam import optimizer_hooks, serializers

HYPERPARAM = {
    "alpha": 0.05,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-3,
    "eta": 0.7,
    "weight_decay_rate": 0.01,
    "amsgrad": False,
}


def halve(rule: Any, param: Any) -> None:
    param.grad *= 0.5


def lower_alpha(opt: Any) -> None:
    opt.alpha *= 0.75


def nothing(opt: Any) -> None:
    pass


def save_in_memory(opt: Any) -> None:
    serializers.save_npz(io.BytesIO(), opt)


halve.call_for_each_param = True  # type: ignore[attr-defined]
HOOKS: dict[str, tuple[Callable[[], Any], str]] = {
    "decay": (lambda: optimizer_hooks.WeightDecay(0.25), "pre"),
    "lasso": (lambda: optimizer_hooks.Lasso(0.125), "pre"),
    "clip": (lambda: optimizer_hooks.GradientClipping(2.0), "pre"),
    "hard": (lambda: optimizer_hooks.GradientHardClipping(-1.5, 1.5), "pre"),
    "halve": (lambda: halve, "pre"),
    "alpha": (lambda: lower_alpha, "pre"),
    "nothing": (lambda: nothing, "post"),
    "save": (lambda: save_in_memory, "post"),
}


class Program(Trained):
    """The optimizer and the model, and what the steps of a program do to both."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed)
        self.folder = folder
        self.known: list[tuple[Entry, Any]] = []
        chosen = random.Random(~seed)
        h = {**HYPERPARAM, "amsgrad": chosen.random() < 0.3}
        self.model = Model(h)
        self.opt: Any = fastadam.Adam(**h).setup(self.target)
        if chosen.random() < 0.4:
            self.fp32()
        self.walk()

    def look(self, a: int, b: int, c: int) -> None:
        opt = self.opt
        how = a % 12
        if how == 0:
            self.check_states()
        elif how == 1:
            len(repr(opt.parameters) + repr(opt))
        elif how == 2:
            serializers.save_npz(io.BytesIO(), opt)
        elif how == 3:
            assert opt != fastadam.Adam(alpha=3.0).setup({"w": np.ones(2)})
        elif how == 4:
            assert not fastadam.compare(opt, fastadam.snapshot(opt))
        elif how == 5:
            fastadam.snapshot(opt)
        elif how == 6:
            copy.deepcopy(opt)
        elif how == 7:
            pickle.dumps(opt)
        elif how == 8:
            list(opt.parameters.items())
        elif how == 9:
            repr(opt.last_update)
        elif how == 10 and self.is_tree:
            fastadam.compare(self.target, self.target)
        elif how == 11 and c % 8 == 0 and self.contiguous():
            fastadam.save(self.folder / "look.npz", opt)
        # the others look at what the last walk has found
        if how in (0, 1, 2, 3, 4, 5, 8) or (how == 11 and c % 8 == 0 and self.contiguous()):
            self.walk()

    def check_states(self) -> None:
        """Everything that is kept is the model's."""
        params = self.opt.parameters
        assert self.opt.t == self.model.t, "t"
        assert self.opt.loss_scale == self.model.scale, "loss scale"
        rows = self.walk()
        assert list(params) == [path for path, _, _ in rows], "paths"
        self.known = [(entry, params[path]) for path, entry, _ in rows]
        for path, entry, _ in rows:
            rule = params[path].update_rule
            assert rule.t == entry.t, (path, "rule.t", rule.t, entry.t)
            assert rule.enabled == entry.enabled, (path, "enabled")
            state = rule.state or {}
            assert state.keys() == (entry.state or {}).keys(), (path, "state")
            for key, array in state.items():
                agree(array, entry.state[key], (path, key))

    def frozen(self, a: int, b: int, c: int) -> None:
        if self.known:
            entry, param = self.known[a % len(self.known)]
            if self.entry_lives(entry):
                entry.enabled = not entry.enabled
                param.update_rule.enabled = entry.enabled

    def entry_lives(self, entry: Entry) -> bool:
        return any(entry is each for each in self.entries.values())

    def hyperparam(self, a: int, b: int, c: int) -> None:
        value = [0.5, 0.75, 0.9][c % 3]
        name = ["alpha", "beta1", "beta2", "weight_decay_rate"][b % 4]
        value = value / 10 if name in ("alpha", "weight_decay_rate") else value
        if a % 3 == 0:
            self.model.h[name] = value
            setattr(self.opt, name, value)
        elif a % 3 == 1:
            self.model.h[name] = value
            vars(self.opt.hyperparam)[name] = value
        elif self.known:
            entry, param = self.known[a // 3 % len(self.known)]
            if self.entry_lives(entry):
                bag = param.update_rule.hyperparam
                if name in entry.own:
                    del entry.own[name]
                    delattr(bag, name)
                elif c % 2:
                    entry.own[name] = value
                    vars(bag)[name] = value
                else:
                    entry.own[name] = value
                    setattr(bag, name, value)

    def amsgrad(self, a: int, b: int, c: int) -> None:
        self.opt.amsgrad = self.model.h["amsgrad"] = not self.model.h["amsgrad"]

    def hook(self, a: int, b: int, c: int) -> None:
        name = list(HOOKS)[a % len(HOOKS)]
        make, timing = HOOKS[name]
        if name in self.model.hooks:
            self.opt.remove_hook(name)
            self.model.hooks.remove(name)
        else:
            self.opt.add_hook(make(), name, timing)
            self.model.hooks.append(name)

    def rule_hook(self, a: int, b: int, c: int) -> None:
        if not self.known:
            return
        entry, param = self.known[a % len(self.known)]
        name = ["decay", "halve", "hard"][b % 3]
        if not self.entry_lives(entry):
            return
        if name in entry.hooks:
            param.update_rule.remove_hook(name)
            entry.hooks.remove(name)
        else:
            param.update_rule.add_hook(HOOKS[name][0](), name)
            entry.hooks.append(name)

    def settings(self, a: int, b: int, c: int) -> None:
        how = a % 6
        if how < 3:
            mode = ["propagate", "skip", "raise"][how]
            self.opt.on_nonfinite = self.model.on_nonfinite = mode
        elif how == 3:
            self.opt.monitor = not self.opt.monitor
        elif how == 4:
            self.opt.loss_scaling(interval=2)
            self.model.scale, self.model.dynamic, self.model.ever = 1.0, True, False
            self.model.multiplier = 2.0**0.5
        else:
            self.opt.loss_scale = None
            self.model.scale, self.model.dynamic = None, False

    def fp32(self) -> None:
        self.opt.use_fp32_update()
        self.model.fp32 = True

    def copied(self, a: int, b: int, c: int) -> None:
        """Go on with a copy, which has what it was copied from."""
        how = a % 3
        if how == 0:
            self.opt = copy.copy(self.opt)
            return
        before = self.leaves()
        if not self.is_tree:
            # all that is there has an entry, also what no walk has found; a copy is no walk
            self.walk()
        self.opt = copy.deepcopy(self.opt) if how == 1 else pickle.loads(pickle.dumps(self.opt))
        self.target = self.opt.target
        moved: dict[Any, Entry] = {}
        for (path, old), (new_path, new) in zip(before, self.leaves(), strict=True):
            assert path == new_path
            arrays = [each if self.is_tree else each.array for each in (old, new)]
            self.values[id(arrays[1])] = arrays[1], self.value_of(arrays[0]).copy(order="K")
            if not self.is_tree:
                moved[id(new)] = self.entries[id(old)]
                self.alive.append(new)
        if not self.is_tree:
            self.entries = moved
        self.known = []

    def setup_again(self, a: int, b: int, c: int) -> None:
        self.opt.setup(self.target)
        self.entries, self.known = {}, []
        self.model.t, self.model.hooks = 0, []
        self.walk()

    def refused(self, a: int, b: int, c: int) -> None:
        """Something that an update does not take: nothing has changed."""
        entries = self.entries
        grads = self.gradients([(p, None) for p, _, _ in self.walk()], {})
        how = a % 4
        where = self.place(b, c)
        if how == 0 and self.is_tree and where is not None:
            container, key = where
            kept, container[key] = container[key], 3.0
            with pytest.raises((TypeError, ValueError)):
                self.opt.apply_gradients(grads)
            container[key] = kept
            # what was refused before all of the target was seen is no walk
            self.entries = entries
        elif how == 1 and isinstance(grads, dict):
            grads.pop(next(iter(grads)))
            with pytest.raises(ValueError, match=r"missing|expected"):
                self.opt.apply_gradients(grads)
        elif how == 2:
            self.opt.add_hook(stop, "stop", "pre")
            with pytest.raises(ZeroDivisionError):
                self.opt.apply_gradients(grads)
            self.opt.remove_hook("stop")
            if "alpha" in self.model.hooks:
                self.model.h["alpha"] *= 0.75
        elif how == 3 and where is not None:
            with pytest.raises((TypeError, ValueError)):
                self.opt.apply_gradients(5.0 if len(self.leaves()) > 1 else "no")

    def gradient(self, rng: Any, p: Any, others: list[Any], clean: bool) -> Any:
        """A gradient of any kind, as somebody might give it."""
        values = np.asarray(rng.standard_normal(p.shape) * 10.0 ** rng.integers(-2, 2))
        if not clean and values.size and rng.integers(12) == 0:
            odd = [np.nan, np.inf, 2e19, 1.4e154, 3.4028235677973366e38, 70000.0]
            values.flat[rng.integers(values.size)] = odd[rng.integers(len(odd))]
        kind = rng.integers(30)
        with np.errstate(all="ignore"):
            native = values.astype(p.dtype)
            if kind == 0:
                return values
            if kind == 1:
                return values.astype("f2")
            if kind == 2:
                return np.array(native, order="F")
            if kind == 3:
                wide = np.zeros((*p.shape, 2), p.dtype)
                wide[..., 0] = native
                return wide[..., 0]
            if kind == 4:
                return np.broadcast_to(native.flat[0] if native.size else native, p.shape)
            if kind == 5:
                return native.astype(p.dtype.newbyteorder())
            if kind == 6:
                native.flags.writeable = False
                return native
            if kind in (7, 8):
                return None
            if kind == 9:
                return values.astype("f4")
            if kind == 10:
                return values.tolist()
            if kind == 11:
                return values.astype(">f2")
            if kind == 12:
                return values.astype("g")
            if kind == 13:
                return p
            if kind == 14:
                fitting = [other for other in others if other.shape == p.shape]
                return fitting[rng.integers(len(fitting))]
            if kind == 15 and p.ndim == 0:
                return native[()]
            return native

    def gradients(self, paths: list[tuple[str, Any]], by_path: dict[str, Any]) -> Any:
        """The gradients in the target's structure."""
        leaves = iter(self.leaves())

        def fill(tree: Any) -> Any:
            if isinstance(tree, np.ndarray):
                path, array = next(leaves)
                return by_path.get(path.strip("/"), np.ones(array.shape))
            if isinstance(tree, dict):
                return {key: fill(child) for key, child in tree.items()}
            return [fill(child) for child in tree]

        if self.is_tree:
            return fill(self.target)
        return {path: by_path.get(path) for path, _ in paths}

    def update(self, a: int, b: int, c: int) -> None:
        rows = self.walk()
        rng = np.random.default_rng(c)
        model = self.model
        clean = model.on_nonfinite == "propagate" and not model.dynamic
        real = {path.strip("/"): leaf for path, leaf in self.leaves()}
        arrays = {path: leaf if self.is_tree else leaf.array for path, leaf in real.items()}
        plain = b % 3 == 0
        grads: dict[str, Any] = {}
        for path in (*(path for path, _, _ in rows), *self.aliases):
            p = arrays[path]
            if plain:
                grads[path] = np.asarray(rng.standard_normal(p.shape)).astype(p.dtype)
            else:
                grads[path] = self.gradient(rng, p, list(arrays.values()), clean)
        scale = model.scale if model.dynamic else [None, None, 8.0, 2.0**-3][a % 4]
        own = not self.is_tree and a % 2 == 0
        made: dict[str, Any] = {}
        if own:
            for param in real.values():
                param.cleargrad()
            for path, param in real.items():
                grad = grads[path]
                if path in self.aliases:
                    continue
                param._loss_scale = scale
                if grad is None:
                    continue
                if b % 2 or not isinstance(grad, np.ndarray) or grad.dtype != param.dtype:
                    param.lend_grad(grad)
                else:
                    param.grad = made[path] = laid_out(grad, param.array)
        given = [
            np.array(made.get(path, grads[path]), copy=True) if grads[path] is not None else None
            for path, _, _ in rows
        ]
        if self.is_tree:
            given = self.sums(rows, grads, given)
        before = {path: np.array(g, copy=True) for path, g in grads.items() if g is not None}
        watched = [path for path in before if not any(grads[path] is x for x in arrays.values())]
        refused = False
        try:
            model.update([(entry, p) for _, entry, p in rows], given, scale)
        except Refused:
            refused = True
        self.call(own, rows, grads, scale, refused, b)
        for path in watched:
            same = np.array(grads[path]).tobytes() == before[path].tobytes()
            assert same, ("a gradient was written", path)
        for path, array in arrays.items():
            agree(array, self.value_of(array), (path, "p"))

    def sums(self, rows: Any, grads: dict[str, Any], given: list[Any]) -> list[Any]:
        """Add the gradients of an array that is there twice."""
        place = {path: i for i, (path, _, _) in enumerate(rows)}
        for path, first in self.aliases.items():
            more, i = grads[path], place[first]
            if more is None:
                continue
            more, one = np.asarray(more), given[i]
            if one is None:
                given[i] = np.array(more, copy=True)
            else:
                native = one.dtype.newbyteorder("=")
                wide = computing(native) if native.itemsize <= 8 else native
                with np.errstate(all="ignore"):
                    given[i] = one.astype(wide) + more
        return given

    def call(
        self, own: bool, rows: Any, grads: dict[str, Any], scale: Any, refused: bool, b: int
    ) -> None:
        """Make the update of the optimizer."""
        opt = self.opt
        structure = self.gradients([(path, None) for path, _, _ in rows], grads)
        with warnings.catch_warnings(), np.errstate(all=["warn", "raise"][b % 2]):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "the gradient of .* is not finite")
            try:
                if own:
                    opt.update()
                elif b % 5 == 0 and scale is None:
                    assert opt.update(lambda: (2.5, structure)) == 2.5
                else:
                    opt.apply_gradients(structure, loss_scale=scale)
            except (FloatingPointError, ValueError, TypeError):
                if not refused:
                    raise
            else:
                assert not refused, "it was taken"


def laid_out(array: Any, like: Any) -> Any:
    """A copy in another's layout."""
    copied = np.empty_like(like, array.dtype)
    copied[...] = array
    return copied


def stop(opt: Any) -> None:
    raise ZeroDivisionError


def agree(found: Any, expected: Any, where: Any) -> None:
    """Every bit; NaN's own aside."""
    assert found.dtype == expected.dtype, (where, found.dtype, expected.dtype)
    assert found.shape == expected.shape, where
    a, b = (np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}") for x in (found, expected))
    different = (a != b) & ~(np.isnan(found) & np.isnan(expected)).reshape(a.shape)
    assert not different.any(), (where, found, expected)
