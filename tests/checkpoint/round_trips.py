"""Random optimizers: anything that can be one, saved and loaded in every way."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastadam
from fastadam import Chain, ChainList, Link, Parameter, UpdateRule
from fastadam.optimizer_hooks import GradientClipping, GradientNoise, WeightDecay
from fastadam.serializers import (
    DictionarySerializer,
    NpzDeserializer,
    load_hdf5,
    load_npz,
    save_hdf5,
    save_npz,
)

KINDS = ["Adam", "AdamW", "AMSGrad", "AdaBound", "AMSBound"]
DTYPES: list[Any] = [np.float16, np.float32, np.float64]
if find_spec("ml_dtypes") is not None:
    import ml_dtypes

    DTYPES.append(ml_dtypes.bfloat16)
SHAPES = [(), (3,), (2, 3), (0, 2), (1, 1, 4)]
TARGETS = ["dict", "list", "nested", "array", "link", "chain", "chainlist", "params", "shared"]
HAS_H5PY = find_spec("h5py") is not None


class Momentum(UpdateRule):
    """A user's rule with an array, a count and a number in its state."""

    def init_state(self, param: Any) -> None:
        self.state["u"] = np.zeros_like(param.array)
        self.state["n"] = 0
        self.state["sum"] = 0.0

    def update_core(self, param: Any) -> None:
        self.state["u"] += param.grad
        self.state["n"] += 1
        self.state["sum"] += 0.5
        param.array -= (0.25 * self.state["u"]).astype(param.array.dtype)


class Counting:
    """A hook with a state of its own."""

    call_for_each_param = False
    timing = "pre"

    def __init__(self, name: str) -> None:
        self.name, self.n = name, 0

    def __call__(self, *_: Any) -> None:
        self.n += 1

    def serialize(self, serializer: Any) -> None:
        self.n = serializer("n", self.n)


class Parameters:
    """An object with `params()` and nothing else."""

    def __init__(self, params: list[Parameter]) -> None:
        self._all = params

    def params(self) -> list[Parameter]:
        return self._all


def array(random: np.random.Generator, shape: tuple[int, ...], dtype: Any, layout: int) -> Any:
    """An array in one of several layouts."""
    values = np.asarray(random.normal(size=shape))
    if layout == 1:
        made = np.zeros(shape[::-1], dtype).transpose()
    elif layout == 2:
        made = np.zeros(tuple(2 * n for n in shape), dtype)[
            tuple(slice(None, None, 2) for _ in shape)
        ]
    elif layout == 3:
        made = np.zeros(shape, dtype)[tuple(slice(None, None, -1) for _ in shape)]
    else:
        made = np.zeros(shape, dtype)
    made = np.asarray(made).reshape(shape) if shape == () else made
    made[...] = values.astype(dtype)
    return made


@dataclass
class Program:
    """One optimizer: how it is made, and what is done to it before it is saved."""

    seed: int
    plan: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)

        def pick(*values: Any) -> Any:
            return values[int(random.integers(len(values)))]

        n = int(random.integers(1, 5))
        self.plan = {
            "kind": pick(*KINDS),
            "target": pick(*TARGETS),
            "leaves": [(pick(*SHAPES), pick(*DTYPES), int(random.integers(4))) for _ in range(n)],
            "masters": pick(False, True),
            "scale": pick(None, None, "dynamic", 8.0),
            "hooks": [
                h for h in ("noise", "clip", "decay", "own", "of a rule") if random.random() < 0.25
            ],
            "frozen": int(random.integers(-1, n)),
            "no rule": int(random.integers(-4, n)),
            "own rule": int(random.integers(-4, n)),
            "lazy": int(random.integers(-3, n)),
            "own hyperparameter": int(random.integers(-2, n)),
            "masters of one": int(random.integers(-4, n)),
            "alpha": pick(
                0.1,
                np.float32(0.1),
                np.float64(0.2),
                Fraction(1, 8),
                Decimal("0.1"),
                np.array(0.3),
                1,
            ),
            "modes": pick(
                {}, {}, {"eps_mode": "paper"}, {"decay_mode": "alpha", "eps_mode": "paper"}
            ),
            "switch": pick(None, None, "amsgrad", "adabound"),
            "when": pick("first", "middle", "last"),
            "on_nonfinite": pick("propagate", "skip"),
            "monitor": pick(False, False, True),
            "missing_gradients": pick("zeros", "skip"),
            "steps": int(random.integers(0, 4)),
            "persistent": pick(True, False),
        }

    def target(self, seed: int) -> Any:
        """Make the target."""
        plan, random = self.plan, np.random.default_rng([self.seed, seed])
        arrays = [array(random, *leaf) for leaf in plan["leaves"]]
        kind = plan["target"]
        if kind == "dict":
            return {f"p{i}": a for i, a in enumerate(arrays)}
        if kind == "list":
            return arrays
        if kind == "nested":
            return {"a": {f"p{i}": a for i, a in enumerate(arrays)}, "b": [arrays[0].copy()]}
        if kind == "array":
            return arrays[0]
        if kind == "shared":
            return {"one": arrays[0], "two": arrays[0], "rest": arrays[1:]}
        params = [Parameter(a) for a in arrays]
        if plan["lazy"] >= 0:
            params[plan["lazy"]] = Parameter()
        if kind == "params":
            return Parameters(params)
        links = []
        for i, param in enumerate(params):
            link = Link()
            with link.init_scope():
                link.w = param
            if plan["persistent"]:
                link.add_persistent("mean", array(random, (2, 3), np.float32, i % 4))
                link.add_persistent("n", seed)
                link.add_persistent("word", f"word {seed}")
            links.append(link)
        if kind == "link":
            return links[0]
        if kind == "chain":
            return Chain(**{f"l{i}": link for i, link in enumerate(links)})
        return ChainList(*links)

    def make(self, seed: int) -> Any:
        """Make the optimizer as it begins."""
        plan = self.plan
        kind = getattr(fastadam, plan["kind"])
        opt = kind(alpha=plan["alpha"])
        for name, value in plan["modes"].items():
            setattr(opt, name, value)
        opt.setup(self.target(seed))
        opt.on_nonfinite, opt.monitor = plan["on_nonfinite"], plan["monitor"]
        opt.missing_gradients = plan["missing_gradients"]
        if plan["masters"]:
            opt.use_fp32_update()
        if plan["scale"] == "dynamic":
            opt.loss_scaling(interval=3)
        elif plan["scale"]:
            opt.loss_scaling(scale=plan["scale"])
        params = list(opt.parameters.values())
        paths = list(opt.parameters)

        def at(name: str) -> int:
            i = plan[name]
            return i if 0 <= i < len(params) else -1

        if at("no rule") >= 0:
            params[at("no rule")].update_rule = None
        if at("own rule") >= 0 and params[at("own rule")].array is not None:
            rule = Momentum(opt.hyperparam)
            params[at("own rule")].update_rule = rule
        if at("frozen") >= 0 and params[at("frozen")].update_rule is not None:
            params[at("frozen")].update_rule.enabled = False
        i = at("own hyperparameter")
        if i >= 0 and params[i].update_rule is not None:
            opt.set_hyperparam(lambda path, _: path == paths[i], alpha=0.5, beta1=np.float32(0.75))
        i = at("masters of one")
        if i >= 0 and params[i].update_rule is not None:
            params[i].update_rule.use_fp32_update()
        hooks = {
            "noise": lambda: GradientNoise(0.1),
            "clip": lambda: GradientClipping(1.0),
            "decay": lambda: WeightDecay(0.01),
            "own": lambda: Counting("own"),
        }
        for name in plan["hooks"]:
            if name in hooks:
                opt.add_hook(hooks[name]())
            elif params[0].update_rule is not None:
                params[0].update_rule.add_hook(Counting("of a rule"))
        return opt

    def run(self, opt: Any, n: int, seed: int) -> None:
        """Make updates, and the switch where it belongs."""
        for step in range(n):
            advance(opt, [self.seed, seed, step])

    def switch(self, opt: Any) -> None:
        """Switch a flag."""
        name = self.plan["switch"]
        if name is not None:
            setattr(opt, name, not getattr(opt, name))

    def saved(self) -> Any:
        """Make the optimizer, and do what is done before it is saved."""
        opt = self.make(1)
        plan = self.plan
        if plan["when"] == "first":
            self.switch(opt)
        self.run(opt, plan["steps"], 1)
        if plan["when"] == "middle":
            self.switch(opt)
            self.run(opt, 1, 2)
        if plan["when"] == "last":
            self.switch(opt)
        if plan["steps"] % 2:
            opt.new_epoch()
            opt.alpha = float(opt.alpha) / 2
        return opt

    def fresh(self) -> Any:
        """Make another to load into: as it was made, with its flags of now and other numbers."""
        opt = self.make(3)
        self.switch(opt)
        opt.alpha = 0.75
        return opt

    def changed(self) -> Any:
        """Make what it was saved from, trained on and changed since."""
        opt = self.saved()
        self.run(opt, 2, 5)
        opt.alpha = 0.6
        opt.eps_mode = "hat"
        opt.loss_scale = 32.0
        return opt


def advance(opt: Any, seed: Any) -> None:
    """Make one update."""
    random = np.random.default_rng(seed)
    scale, given = opt.loss_scale, False
    for param in opt.parameters.values():
        if param.array is not None:
            param.cleargrad()
            if given and random.random() < 0.1:
                continue
            given = True
            grad = np.asarray(random.normal(size=param.array.shape) * (scale or 1.0))
            param.grad = grad.astype(param.array.dtype)
            param._loss_scale = scale
    opt.update()


def ways(folder: Path) -> Iterator[tuple[str, bool, Callable[[Any], None], Callable[[Any], None]]]:
    """Yield ways to save and load: name, whether it is all, how to save, how to load."""
    for suffix in ("npz", "h5") if HAS_H5PY else ("npz",):
        path = folder / f"run.{suffix}"
        yield (
            suffix,
            True,
            lambda o, p=path: fastadam.save(p, o),
            lambda o, p=path: fastadam.load(p, o),
        )

    def save_all(opt: Any, file: Any, target: Any, save: Any) -> None:
        save(file, opt)
        if isinstance(opt.target, Link):
            save(target, opt.target)

    def load_all(opt: Any, file: Any, target: Any, load: Any) -> None:
        load(file, opt)
        if isinstance(opt.target, Link):
            load(target, opt.target)

    pairs = [("save_npz", save_npz, load_npz)]
    if HAS_H5PY:
        pairs.append(("save_hdf5", save_hdf5, load_hdf5))
    for name, save, load in pairs:
        files = folder / f"{name}.opt", folder / f"{name}.target"
        yield (
            name,
            False,
            lambda o, f=files, s=save: save_all(o, *f, s),
            lambda o, f=files, r=load: load_all(o, *f, r),
        )
    kept: dict[str, Any] = {}

    def save_dict(opt: Any) -> None:
        kept.clear()
        DictionarySerializer(kept).save(opt)
        buffer = io.BytesIO()
        np.savez(buffer, **kept)
        buffer.seek(0)
        with np.load(buffer, allow_pickle=True) as file:
            kept.update({key: file[key] for key in file.files})

    yield "dictionary", False, save_dict, lambda o: NpzDeserializer(kept).load(o)


def copy_what_is_not_saved(source: Any, target: Any) -> None:
    """Give an optimizer what its own file does not hold: parameters, settings, hyperparameters."""
    for name, value in vars(source.hyperparam).items():
        setattr(target.hyperparam, name, value)
    for name in set(vars(target.hyperparam)) - set(vars(source.hyperparam)):
        delattr(target.hyperparam, name)
    target.on_nonfinite, target.monitor = source.on_nonfinite, source.monitor
    target.missing_gradients = source.missing_gradients
    target._use_fp32_update = source._use_fp32_update
    if source.loss_scale is None:
        target.loss_scale = None
    for path, param in source.parameters.items():
        other = target.parameters[path]
        if param.array is not None:
            if other.array is None:
                other.initialize_with(param.array.copy())
            else:
                other.array[...] = param.array
        rule, its = param.update_rule, other.update_rule
        if rule is None:
            continue
        its._use_fp32_update = rule._use_fp32_update
        its.enabled = rule.enabled
        vars(its.hyperparam).clear()
        for name, value in vars(rule.hyperparam).items():
            setattr(its.hyperparam, name, value)
        if "initial_alpha" in vars(rule):
            its.initial_alpha = rule.initial_alpha
        elif "initial_alpha" in vars(its):
            del its.initial_alpha
    mine, theirs = (
        [
            *o._hooks,
            *(h for p in o.parameters.values() if p.update_rule for h in p.update_rule._hooks),
        ]
        for o in (source, target)
    )
    for (_, _, hook), (_, _, other) in zip(mine, theirs, strict=True):
        vars(other).update(vars(hook))


def difference(one: Any, two: Any) -> str:
    """Say where two optimizers differ; empty if they do not."""
    if one == two:
        return ""
    return str(fastadam.compare(one, two))


def check(seed: int) -> None:
    """Save one program's optimizer in every way, and load it into others."""
    program = Program(seed)
    np.random.seed(seed % 1000)
    opt = program.saved()
    generator: Any = np.random.get_state()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the gradient of")
        after: dict[str, Any] = {}
        for way, whole, save, load in ways(Path(name)):
            # only whole files hold the flags that say whether there is a vhat
            if not whole and program.plan["switch"] == "amsgrad":
                continue
            np.random.set_state(generator)
            save(opt)
            for into in ("fresh", "changed"):
                other = getattr(program, into)()
                np.random.seed(5)
                if whole:
                    load(other)
                else:
                    # a file of a state alone is read by the flags that were there
                    copy_what_is_not_saved(opt, other)
                    load(other)
                    copy_what_is_not_saved(opt, other)
                    np.random.set_state(generator)
                where = f"program {seed}, {way} into a {into} one, {program.plan}"
                assert not (found := difference(opt, other)), f"{where}: {found}"
                if not whole or "noise" not in program.plan["hooks"]:
                    np.random.set_state(generator)
                advance(other, [seed, 99])
                after[f"{way} {into}"] = other
        np.random.set_state(generator)
        advance(opt, [seed, 99])
        for where, other in after.items():
            assert not (found := difference(opt, other)), (
                f"program {seed}, the update after {where}, {program.plan}: {found}"
            )
