"""Random programs over the optimizers here and PyTorch's own: what a training script may do."""

from __future__ import annotations

import copy
import io
import random
from typing import Any

import torch
from torch_pairs import named, same, snapshot

import fastadam.torch

SHAPES = [(3, 4), (7,), (), (2, 3, 4, 5), (1000,), (0,), (1,), (33, 65)]
FLOATS = [torch.float32, torch.float64]
# Half-precision moments are float32 here, so these are compared with float32 by PyTorch.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 2e-15, torch.complex64: 1e-6}


class Program:
    """Two optimizers on equal parameters, to which the same is done."""

    def __init__(self, seed: int) -> None:
        self.chosen = random.Random(seed)
        torch.manual_seed(seed)
        kind = self.chosen.choice(["Adam", "AdamW"])
        self.kinds = [getattr(fastadam.torch, kind), getattr(torch.optim, kind)]
        self.options = self.some_options()
        self.options.setdefault("lr", 0.01)
        groups = self.new_groups(self.chosen.choice([1, 1, 2, 3]))
        self.params = [[p for g in each for p in g["params"]] for each in groups]
        if self.chosen.random() < 0.1:
            names = [f"w{i}" for i in range(len(self.params[0]))]
            groups = [named(zip(names, own, strict=True)) for own in self.params]
        self.opts = [k(g, **self.options) for k, g in zip(self.kinds, groups, strict=True)]
        self.scheduled: list[Any] = []

    def some_options(self) -> dict[str, Any]:
        chosen, options = self.chosen, {}
        if chosen.random() < 0.5:
            options["lr"] = chosen.choice([0.1, 1e-3, torch.tensor(0.02, dtype=torch.float64)])
        if chosen.random() < 0.3:
            options["betas"] = chosen.choice([(0.8, 0.95), (0.0, 0.9), (0.5, 0.6)])
        if chosen.random() < 0.3:
            options["eps"] = chosen.choice([1e-3, 1e-10])
        if chosen.random() < 0.4:
            options["weight_decay"] = chosen.choice([0.1, 0.01, 0])
        for name in ("amsgrad", "maximize"):
            if chosen.random() < 0.25:
                options[name] = True
        return options

    def new_param(self) -> list[torch.nn.Parameter]:
        chosen = self.chosen
        shape = chosen.choice(SHAPES)
        dtype = chosen.choice([torch.float32, torch.float32, torch.float64, torch.complex64])
        value = torch.randn(shape, dtype=dtype)
        if value.ndim == 4 and chosen.random() < 0.5:
            value = value.to(memory_format=torch.channels_last)
        elif value.ndim == 2 and chosen.random() < 0.3:
            value = value.t().contiguous().t()
        elif value.ndim == 1 and chosen.random() < 0.1 and dtype is not torch.complex64:
            both = [torch.stack([value, value], -1).contiguous() for _ in range(2)]
            return [torch.nn.Parameter(each[..., 0]) for each in both]
        return [torch.nn.Parameter(value.clone(memory_format=torch.preserve_format)) for _ in "ab"]

    def new_groups(self, n: int) -> list[list[dict[str, Any]]]:
        groups: list[list[dict[str, Any]]] = [[], []]
        for _ in range(n):
            pairs = [self.new_param() for _ in range(self.chosen.choice([1, 2, 5]))]
            own = self.some_options() if n > 1 else {}
            for k in range(2):
                groups[k].append({"params": [pair[k] for pair in pairs], **own})
        return groups

    def gradients(self) -> None:
        chosen = self.chosen
        for pair in zip(*self.params, strict=True):
            if chosen.random() < 0.15:
                for p in pair:
                    p.grad = None
                continue
            p = pair[0]
            g = torch.randn(p.shape, dtype=p.dtype) * 10.0 ** chosen.randrange(-3, 2)
            kind = chosen.randrange(12)
            if kind == 0 and p.ndim == 2:
                g = g.t().contiguous().t()
            elif kind == 1 and p.ndim == 4:
                g = g.to(memory_format=torch.channels_last)
            elif kind == 2:
                g = torch.zeros_like(g)
            elif kind == 3 and p.numel():
                g = torch.randn((), dtype=p.dtype).expand(p.shape)
            for p in pair:
                p.grad = g if kind == 3 else g.clone(memory_format=torch.preserve_format)

    def step(self) -> None:
        self.gradients()
        closure = (lambda: torch.tensor(2.5)) if self.chosen.random() < 0.1 else None
        bound = self.opts[0].max_grad_norm
        if bound is not None:
            for p in self.params[1]:
                if p.grad is not None:
                    # one that was broadcast cannot be written
                    p.grad = p.grad.clone()
            torch.nn.utils.clip_grad_norm_(self.params[1], bound)
        before = [self.sizes(i) for i in range(len(self.params[1]))]
        found = [opt.step(closure) for opt in self.opts]
        assert found[0] == found[1]
        self.compare(before)

    def sizes(self, i: int) -> dict[str, float]:
        """How large the numbers are that a step of a parameter adds to: what it is rounded to."""
        param = self.params[1][i]
        found = {"parameter": greatest(param), "exp_avg": greatest(param.grad)}
        found["exp_avg"] += 0.1 * found["parameter"]
        found["exp_avg_sq"] = found["max_exp_avg_sq"] = found["exp_avg"] ** 2
        for key, value in self.opts[1].state.get(param, {}).items():
            found[key] = max(found.get(key, 0.0), greatest(value))
        return found

    def change(self) -> None:
        name = self.chosen.choice(
            [
                *("number", "number", "late_group", "reload", "crossed", "copied", "data"),
                *("schedule", "edited", "looked", "zero", "frozen", "switch", "bound"),
                *("refused", "replaced"),
            ]
        )
        getattr(self, name)()

    def number(self) -> None:
        i = self.chosen.randrange(len(self.opts[0].param_groups))
        key, value = self.chosen.choice(
            [("lr", 0.03), ("weight_decay", 0.05), ("eps", 1e-4), ("betas", (0.7, 0.9))]
        )
        for opt in self.opts:
            if key == "lr" and isinstance(opt.param_groups[i]["lr"], torch.Tensor):
                opt.param_groups[i]["lr"].fill_(value)
            else:
                opt.param_groups[i][key] = value

    def switch(self) -> None:
        i = self.chosen.randrange(len(self.opts[0].param_groups))
        for opt in self.opts:
            opt.param_groups[i]["maximize"] = not opt.param_groups[i]["maximize"]

    def bound(self) -> None:
        self.opts[0].max_grad_norm = self.chosen.choice([None, 0.5, 1e3])

    def refused(self) -> None:
        """What no step can be made with, after which all is as it was."""
        opt = self.opts[0]
        group = self.chosen.choice(opt.param_groups)
        key, value = self.chosen.choice(
            [("betas", (0.5, 1.0)), ("eps", -1.0), ("capturable", True), ("lr", "much")]
        )
        was, group[key] = group[key], value
        before = copy.deepcopy(snapshot(opt))
        try:
            opt.step()
        except (TypeError, ValueError):
            assert same(snapshot(opt), before)
        else:
            raise AssertionError("a step was made")
        group[key] = was

    def replaced(self) -> None:
        """Another list of groups, and another dict of states."""
        for opt in self.opts:
            opt.param_groups = [dict(group) for group in opt.param_groups]
            opt.state = copy.copy(opt.state)

    def late_group(self) -> None:
        if "param_names" in self.opts[0].param_groups[0]:
            return
        for k, (opt, groups) in enumerate(zip(self.opts, self.new_groups(1), strict=True)):
            opt.add_param_group(groups[0])
            self.params[k] += groups[0]["params"]

    def reload(self) -> None:
        """Through a file, each into a new one of its own."""
        for k in range(2):
            self.load(k, self.opts[k])

    def crossed(self) -> None:
        """Each goes on with what the other has saved."""
        states = [self.saved(opt) for opt in self.opts]
        for opt, state in zip(self.opts, states[::-1], strict=True):
            opt.load_state_dict(state)

    def saved(self, opt: Any) -> Any:
        file = io.BytesIO()
        torch.save(opt.state_dict(), file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    def load(self, k: int, opt: Any) -> None:
        if self.scheduled:
            return
        groups = [{"params": g["params"]} for g in opt.param_groups]
        if "param_names" in opt.param_groups[0]:
            # there is one
            (group,) = opt.param_groups
            groups = named(zip(group["param_names"], group["params"], strict=True))
        self.opts[k] = self.kinds[k](groups, **self.options)
        self.opts[k].load_state_dict(self.saved(opt))

    def copied(self) -> None:
        if self.scheduled:
            return
        for k in range(2):
            self.opts[k] = copy.deepcopy(self.opts[k])
            self.params[k] = [p for g in self.opts[k].param_groups for p in g["params"]]

    def data(self) -> None:
        """Other memory under a parameter."""
        i = self.chosen.randrange(len(self.params[0]))
        for own in self.params:
            own[i].data = own[i].data.clone(memory_format=torch.preserve_format)

    def schedule(self) -> None:
        if self.scheduled or any(
            isinstance(g["lr"], torch.Tensor) for g in self.opts[0].param_groups
        ):
            return
        self.scheduled = [torch.optim.lr_scheduler.ExponentialLR(opt, 0.9) for opt in self.opts]

    def edited(self) -> None:
        i = self.chosen.randrange(len(self.params[0]))
        for opt, own in zip(self.opts, self.params, strict=True):
            if opt.state.get(own[i]):
                opt.state[own[i]]["exp_avg"] = opt.state[own[i]]["exp_avg"] * 0.5

    def looked(self) -> None:
        i = self.chosen.randrange(len(self.params[0]))
        for opt, own in zip(self.opts, self.params, strict=True):
            opt.state[own[i]]
            repr(opt)
            opt.state_dict()

    def zero(self) -> None:
        to_none = self.chosen.random() < 0.5
        for opt in self.opts:
            opt.zero_grad(set_to_none=to_none)

    def frozen(self) -> None:
        i = self.chosen.randrange(len(self.params[0]))
        for own in self.params:
            own[i].requires_grad_(not own[i].requires_grad)

    def compare(self, before: list[dict[str, float]]) -> None:
        for scheduler in self.scheduled:
            scheduler.step()
        loose = 0.0
        if self.opts[0].max_grad_norm is not None:
            # PyTorch's norm, and what it multiplies with, are float32; that of complex numbers is
            # a sum of one after the other
            loose = 5e-5 if any(p.is_complex() for p in self.params[1]) else 5e-6
        for i, (p, q) in enumerate(zip(*self.params, strict=True)):
            size = before[i]["parameter"] + self.cancelled(i, before[i]["exp_avg"])
            near(p.detach(), q.detach(), size, ("parameter", i), loose)
            ours, theirs = (opt.state.get(x) for opt, x in zip(self.opts, (p, q), strict=True))
            assert bool(ours) == bool(theirs), i
            for key, value in (theirs or {}).items():
                near(ours[key], value, before[i].get(key, 0.0), (key, i), loose)
                # differences in rounding do not add up
                ours[key].copy_(value)
            with torch.no_grad():
                p.copy_(q)

    def cancelled(self, i: int, size: float) -> Any:
        """What rounding is magnified to where a gradient and its decay cancel one another."""
        param = self.params[1][i]
        group = next(
            each
            for each in self.opts[1].param_groups
            if any(param is other for other in each["params"])
        )
        state = self.opts[1].state.get(param)
        # which the groups of older versions do not say
        decoupled = group.get("decoupled_weight_decay") or self.kinds[1] is torch.optim.AdamW
        if not state or decoupled or not group["weight_decay"]:
            return 0.0
        v = torch.view_as_real(state["exp_avg_sq"]) if param.is_complex() else state["exp_avg_sq"]
        return float(group["lr"]) * size / (v.min().sqrt().item() + 1e-8) if v.numel() else 0.0


def greatest(tensor: torch.Tensor | None) -> float:
    return 0.0 if tensor is None or not tensor.numel() else tensor.detach().abs().max().item()


def near(
    found: torch.Tensor, expected: torch.Tensor, size: float, where: Any, loose: float
) -> None:
    assert found.dtype == expected.dtype, (where, found.dtype, expected.dtype)
    assert found.shape == expected.shape, where
    bound = max(loose, TOLERANCE[expected.dtype]) * max(size, greatest(expected), 1e-2)
    far = (found - expected).abs() > bound
    assert not far.any(), (where, greatest(found - expected), bound)


def run(seed: int) -> None:
    """Run one program."""
    program = Program(seed)
    for _ in range(program.chosen.choice([5, 10, 20])):
        if program.chosen.random() < 0.6:
            program.step()
        else:
            program.change()
    program.step()
