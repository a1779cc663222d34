"""The optimizers that the golden files hold: how they are made, trained, and put down in words.

What is here must go on building what the files were written from. New cases get files of their own
(`write.py`), old ones stay as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastadam
from fastadam.optimizer_hooks import GradientClipping, GradientNoise, WeightDecay


class Case(NamedTuple):
    """One optimizer: what makes it, untrained; how many updates it had; what was done after."""

    make: Callable[[], Any]
    steps: int = 3
    touch: Callable[[Any], None] = lambda opt: None


def numbers(name: str, t: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """Fixed numbers that every dtype has, none of them by a generator that may change."""
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    whole = (i * 37 + t * 101 + zlib.crc32(name.encode())) % 257 - 128
    return (whole / 64).reshape(shape).astype(dtype)


def bfloat16() -> Any:
    """The dtype, for those that have it."""
    import ml_dtypes

    return ml_dtypes.bfloat16


def nested(dtype: Any = np.float32) -> Any:
    return {
        "l1": {"W": numbers("W", 0, (2, 3), dtype), "b": numbers("b", 0, (3,), dtype)},
        "rest": [numbers("r0", 0, (), dtype), numbers("r1", 0, (1,), dtype)],
    }


def one(dtype: Any = np.float32) -> Any:
    return {"w": numbers("w", 0, (7,), dtype)}


def named() -> Any:
    made = {name: numbers(name, 0, (1,), np.float32) for name in ("größe", "w[0] b.c")}
    made["fortran"] = np.asfortranarray(numbers("fortran", 0, (2, 3), np.float64))
    made["empty"] = np.zeros((0, 3), np.float32)
    return made


def tied() -> Any:
    shared = numbers("shared", 0, (3,), np.float32)
    return {"a": shared, "b": {"again": shared}, "c": numbers("c", 0, (2,), np.float32)}


def chain(lib: Any = fastadam) -> Any:
    """Links in links, with what links keep; of fastadam or of Chainer."""
    model = lib.Chain(
        l1=lib.Link(W=(2, 3), b=(3,)),
        many=lib.ChainList(lib.Link(W=(2,)), lib.Link(W=((2,), np.float64))),
    )
    model.l1.add_persistent("mean", np.arange(3.0))
    model.l1.add_persistent("n", 7)
    fill(model)
    return model


def texts() -> Any:
    """Persistent values of every other kind."""
    model = fastadam.Link(W=(2,))
    kinds: dict[str, Any] = {
        "text": "größe",
        "nothing": None,
        "number": 0.1,
        "flag": np.bool_(True),
        "ints": np.arange(3, dtype=np.int16),
        "flags": np.array([True, False]),
        "halves": np.array([0.5, -0.0], np.float16),
    }
    for name, value in kinds.items():
        model.add_persistent(name, value)
    fill(model)
    return model


def tied_links() -> Any:
    model = fastadam.Chain(one=fastadam.Link(W=(2, 2)), two=fastadam.Link())
    with model.two.init_scope():
        model.two.V = model.one.W
    fill(model)
    return model


def lazy(lib: Any = fastadam) -> Any:
    """One parameter has no array yet."""
    model = lib.Chain(l=lib.Link(b=(2,)))
    with model.l.init_scope():
        model.l.W = lib.Parameter()
    fill(model)
    return model


def lazy_made(opt: Any) -> None:
    opt.target.l.W.initialize((3, 2))
    fill(opt.target)
    step(opt)


def fill(model: Any) -> None:
    for path, param in model.namedparams():
        if param.array is not None:
            param.array[...] = numbers(path, 0, param.shape, param.dtype)


class Counting:
    """A user's hook with a state of its own."""

    name = "counting"

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, rule: Any, param: Any) -> None:
        self.n += 1

    def serialize(self, serializer: Any) -> None:
        self.n = serializer("n", self.n)


def hooked() -> Any:
    np.random.seed(5)
    opt = fastadam.Adam(alpha=0.125).setup(one())
    opt.add_hook(GradientNoise(0.25))
    opt.add_hook(WeightDecay(0.125))
    opt.add_hook(GradientClipping(1.5))
    opt.parameters["w"].update_rule.add_hook(Counting())
    return opt


def half(dtype: Any, masters: bool, scale: float | None = None, dynamic: bool = False) -> Any:
    opt = fastadam.AMSBound(alpha=0.03125, gamma=0.015625).setup(one(dtype))
    opt.use_fp32_update(masters)
    if scale is not None or dynamic:
        opt.loss_scaling(interval=4, scale=scale)
    return opt


def per_parameter() -> Any:
    opt = fastadam.Adam(alpha=0.125, beta1=0.875, beta2=0.96875, eta=0.5).setup(nested())
    opt.set_hyperparam("*/b", weight_decay_rate=0.25, alpha=0.5)
    opt.set_hyperparam("rest/0", eps=0.0625, beta1=0.5)
    opt.parameters["rest/1"].update_rule.enabled = False
    opt.on_nonfinite = "skip"
    opt.monitor = True
    return opt


def scheduled(opt: Any) -> None:
    """A schedule has changed alpha since AdaBound's bounds were measured."""
    opt.alpha = 0.0625
    step(opt)
    opt.new_epoch()
    opt.epoch = 4


def odd_values(opt: Any) -> None:
    """Infinities, NaN with a payload, negative zero, subnormal numbers."""
    bits = [0x7FF80000DEADBEEF, 0x7FF0000000000000, 1 << 63, 5, 0xFFEFFFFFFFFFFFFF]
    param = opt.parameters["w"]
    param.array[:5] = np.array(bits, np.uint64).view(np.float64)
    param.update_rule.state["m"][2:] = np.array(bits, np.uint64).view(np.float64)


def overflowed(opt: Any) -> None:
    """A dynamic scale that has met a gradient that was not finite."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        step(opt, special=np.inf)
    step(opt)


CASES: dict[str, Case] = {
    "ways": Case(lambda: fastadam.AMSBound(alpha=0.125, gamma=0.25).setup(one()), 2, scheduled),
    "adam": Case(lambda: fastadam.Adam(alpha=0.125).setup(nested())),
    "unstepped": Case(lambda: fastadam.Adam().setup(one(np.float64)), 0),
    "adamw": Case(
        lambda: fastadam.AdamW(alpha=0.125, eta=0.5, weight_decay_rate=0.0625).setup(one())
    ),
    "modes": Case(
        lambda: fastadam.AdamW(
            alpha=0.125, eps=0.5, weight_decay_rate=0.25, eps_mode="paper", decay_mode="alpha"
        ).setup(one(np.float64))
    ),
    "amsgrad": Case(lambda: fastadam.AMSGrad(alpha=0.125).setup(one(np.float64))),
    "adabound": Case(
        lambda: fastadam.AdaBound(alpha=0.125, final_lr=0.5).setup(one(np.float64)), 2, scheduled
    ),
    "flags": Case(
        lambda: fastadam.Adam(
            1, 0.875, 0.96875, weight_decay_rate=0.0625, amsgrad=True, adabound=True
        ).setup(one())
    ),
    "float16": Case(lambda: half(np.float16, False)),
    "bfloat16": Case(lambda: half(bfloat16(), False)),
    "masters_dynamic": Case(lambda: half(np.float16, True, dynamic=True), 2, overflowed),
    "masters_static": Case(lambda: half(bfloat16(), True, 8.0)),
    "hooks": Case(hooked),
    "per_parameter": Case(per_parameter),
    "odd_values": Case(lambda: fastadam.Adam().setup(one(np.float64)), 1, odd_values),
    "one_array": Case(lambda: fastadam.Adam(alpha=0.125).setup(numbers("p", 0, (3,), float))),
    "names": Case(lambda: fastadam.Adam(alpha=0.125).setup(named())),
    "tied": Case(lambda: fastadam.AMSGrad(alpha=0.125).setup(tied())),
    "chain": Case(lambda: fastadam.AMSGrad(alpha=0.125).setup(chain())),
    "link": Case(lambda: fastadam.Adam(alpha=0.125).setup(texts())),
    "tied_links": Case(lambda: fastadam.Adam(alpha=0.125).setup(tied_links())),
    "lazy": Case(lambda: fastadam.Adam(alpha=0.125).setup(lazy()), 2),
    "lazy_made": Case(lambda: fastadam.AMSGrad(alpha=0.125).setup(lazy()), 1, lazy_made),
}


def from_chainer(lib: Any) -> dict[str, Case]:
    """The optimizers in Chainer's own files; made of Chainer to write them, of us to load them."""
    optimizers = lib.optimizers

    def link(dtype: Any) -> Any:
        model = lib.Link(W=((3,), dtype))
        fill(model)
        return model

    def masters() -> Any:
        opt = optimizers.Adam(alpha=0.125).setup(link(np.float16))
        opt.use_fp32_update()
        return opt

    return {
        "adam": Case(lambda: optimizers.Adam(alpha=0.125).setup(chain(lib))),
        "adamw": Case(
            lambda: optimizers.AdamW(alpha=0.125, eta=0.5, weight_decay_rate=0.0625).setup(
                link(np.float64)
            )
        ),
        "amsgrad": Case(lambda: optimizers.AMSGrad(alpha=0.125).setup(chain(lib))),
        "amsbound": Case(
            lambda: optimizers.AMSBound(alpha=0.125, gamma=0.25).setup(chain(lib)), 2, scheduled
        ),
        "unstepped": Case(lambda: optimizers.Adam(alpha=0.125).setup(chain(lib)), 0),
        "half": Case(masters),
        "lazy": Case(lambda: optimizers.Adam(alpha=0.125).setup(lazy(lib)), 2),
    }


def step(opt: Any, special: float | None = None) -> None:
    """One update, with gradients that depend on nothing but names and the number of the update."""
    scale = getattr(opt, "loss_scale", None) or 1.0
    link = hasattr(opt.target, "namedparams")

    def gradient(path: str, p: Any) -> Any:
        g = (numbers(path, opt.t + 1, p.shape, np.float32) * np.float32(scale)).astype(p.dtype)
        if special is not None and g.size:
            g.reshape(-1)[0] = special
        return g

    def tree(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: tree(below, f"{path}/{key}") for key, below in value.items()}
        if isinstance(value, list | tuple):
            return [tree(below, f"{path}/{i}") for i, below in enumerate(value)]
        return gradient(path, value)

    if not link:
        opt.apply_gradients(tree(opt.target, ""), loss_scale=opt.loss_scale)
        return
    for path, param in opt.target.namedparams():
        if param.array is None:
            param.cleargrad()
        else:
            param.grad = gradient(path, param.array)
    opt.update()


def trained(case: Case) -> Any:
    """What is saved."""
    opt = case.make()
    for _ in range(case.steps):
        step(opt)
    case.touch(opt)
    return opt


def put_down(value: Any) -> Any:
    """A value in JSON, all bits of it."""
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, str):
        array = np.asarray(value)
        return [array.dtype.name, list(array.shape), np.ascontiguousarray(array).tobytes().hex()]
    return value  # JSON's numbers are Python's, to the last bit


def record(opt: Any) -> dict[str, Any]:
    """All that an optimizer and its target are, read from the objects, in JSON."""
    target = opt.target
    ours = isinstance(opt, fastadam.GradientMethod)
    params = opt.parameters if ours else {p.strip("/"): v for p, v in target.namedparams()}
    hyperparam = opt.hyperparam.get_dict()
    found: dict[str, Any] = {
        "class": type(opt).__name__,
        "counts": [opt.t, opt.epoch],
        "hyperparam": {name: put_down(value) for name, value in sorted(hyperparam.items())},
        "parameters": {path: record_parameter(p, hyperparam) for path, p in params.items()},
    }
    if ours:
        scale = None if opt.loss_scale is None else float(opt.loss_scale)
        settings = scale, float(opt._loss_scaling_multiplier), opt._loss_scaling_isnan_ever
        found["scale"] = [*settings, opt._loss_scaling_is_dynamic]
        found["settings"] = [opt.on_nonfinite, opt.monitor]
        found["hooks"] = record_hooks(opt)
    if hasattr(target, "namedlinks"):
        found["persistent"] = {
            f"{path}/{name}": put_down(getattr(link, name))
            for path, link in target.namedlinks()
            for name in sorted(link._persistent)
        }
    return found


def record_parameter(param: Any, hyperparam: dict[str, Any]) -> dict[str, Any]:
    """One parameter, its rule, and what the rule has in place of the optimizer's."""
    rule = param.update_rule
    master = rule._fp32_param
    own = {k: v for k, v in rule.hyperparam.get_dict().items() if v != hyperparam.get(k)}
    first = rule.__dict__.get("initial_alpha")
    found = {
        "array": None if param.array is None else put_down(param.array),
        "t": rule.t,
        "state": {name: put_down(value) for name, value in sorted((rule.state or {}).items())},
        "master": None if master is None else put_down(master.array),
        "initial_alpha": None if first is None else float(first),
        "enabled": rule.enabled,
        "own": {name: put_down(value) for name, value in sorted(own.items())},
    }
    return {name: v for name, v in found.items() if not (v is None or v is True or v == {})}


def record_hooks(opt: Any) -> dict[str, Any]:
    """What hooks keep: counts of `Counting`, and NumPy's generator where there is noise."""
    counts = {
        path: hook.n
        for path, param in opt.parameters.items()
        for _, _, hook in param.update_rule._hooks or ()
        if isinstance(hook, Counting)
    }
    if not any(isinstance(hook, GradientNoise) for _, _, hook in opt._hooks or ()):
        return counts
    state: Any = np.random.get_state()
    kind, key, position, has_gauss, gauss = state
    return {**counts, "random": [kind, zlib.crc32(key.tobytes()), position, has_gauss, gauss.hex()]}
