"""Arrays that are one, overlap or are views of one another: as copies would give, or refused.

The arrays are p, g, m, v, vhat and float32 masters of two parameters. Whatever two of them share,
an update gives what it gives with copies, or raises and changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, Link, Parameter, adam_step
from fastadam.algorithms.adam import ADAM

N = 6
HYPER: dict[str, Any] = {"alpha": 0.1, "beta1": 0.7, "beta2": 0.9, "eps": 1e-3, "amsgrad": True}
HYPER["weight_decay_rate"] = 0.05
KEYS = ("p", "g", *ADAM.state)
WRITTEN = ("p", *ADAM.state)

# How two arrays of one shape lie in one piece of memory, by the dtype of its elements.
Placing = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
PLACINGS: dict[str, tuple[int, Placing]] = {
    "one": (N, lambda x: (x, x)),
    "view": (N, lambda x: (x, x[:])),
    "shifted by one": (N + 1, lambda x: (x[:-1], x[1:])),
    "shifted back": (N + 2, lambda x: (x[2:], x[:-2])),
    "one element": (2 * N - 1, lambda x: (x[:N], x[N - 1 :])),
    "reversed": (N, lambda x: (x, x[::-1])),
    "strided": (2 * N, lambda x: (x[::2], x[:N])),
    "strided and reversed": (2 * N, lambda x: (x[::2], x[::-2])),
    "interleaved": (2 * N, lambda x: (x[::2], x[1::2])),
    "side by side": (2 * N, lambda x: (x[:N], x[N:])),
    "far and near": (3 * N, lambda x: (x[::3], x[N : 2 * N])),
}


def drawn(seed: int, key: str) -> np.ndarray:
    """Values for an array of this kind; v and vhat are not negative."""
    values = np.random.default_rng(seed).normal(size=N)
    return np.abs(values) if key in ("v", "vhat") else values


def arrays_of(dtype: Any) -> dict[str, np.ndarray]:
    """The arrays of two parameters, by name: 'p0', 'g0', ..., 'vhat1'."""
    wide = np.float64 if dtype == np.float64 else np.float32
    return {
        f"{key}{i}": drawn(10 * i + j, key).astype(dtype if key in "pg" else wide)
        for i in (0, 1)
        for j, key in enumerate(KEYS)
    }


def shared(arrays: dict[str, np.ndarray], a: str, b: str, how: str) -> bool:
    """Let two arrays share memory; False where their types do not fit."""
    size, place = PLACINGS[how]
    small, large = sorted((a, b), key=lambda name: arrays[name].itemsize)
    one, two = arrays[large], arrays[small]
    if one.dtype == two.dtype:
        first, second = place(np.zeros(size, one.dtype))
    else:
        # the smaller type's elements begin inside those of the larger
        buffer = np.zeros(2 * size + 2, two.dtype)
        first = place(buffer[: 2 * size].view(one.dtype))[0]
        second = place(buffer[1 : size + 1])[1]
    first[...] = one
    second[...] = two
    arrays[large], arrays[small] = first, second
    # the small one may have come to hold any bits; both are to be finite, v not negative
    for name in (a, b):
        array = arrays[name]
        array[...] = np.nan_to_num(array, nan=0.5, posinf=0.5, neginf=-0.5).clip(-4, 4)
    for name in (a, b):
        array = arrays[name]
        if name.startswith("v"):
            array[...] = np.abs(array)
    return all(np.isfinite(arrays[name]).all() for name in (a, b))


def pairs(names: list[str]) -> Iterator[tuple[str, str, str]]:
    """All pairs of names, each in all ways to lie."""
    for a, b in itertools.combinations(names, 2):
        for how in PLACINGS:
            yield a, b, how


def contents(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(array).tobytes() for name, array in arrays.items()}


def check(
    case: tuple[Any, ...],
    arrays: dict[str, np.ndarray],
    step: Callable[[dict[str, np.ndarray]], None],
    a: str,
    b: str,
) -> bool:
    """Step shared arrays and copies of them, and compare; whether the shared ones were taken."""
    copies = {name: array.copy() for name, array in arrays.items()}
    before = contents(arrays)
    step(copies)
    expected = contents(copies)
    both = a[:-1] in WRITTEN and b[:-1] in WRITTEN
    refused = None
    try:
        step(arrays)
    except ValueError as error:
        refused = str(error)
    # what shares memory and is written cannot be as copies are; nothing else is refused
    assert (refused is not None) == (both and np.shares_memory(arrays[a], arrays[b])), case
    assert refused is None or "share memory" in refused, (case, refused)
    found = contents(arrays)
    for name in arrays:
        # hooks and a loss scale have changed gradients, and what they share memory with is written
        if name[0] != "g":
            assert found[name] == (before if refused else expected)[name], (case, name)
    return refused is None


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_adam_step(dtype: str) -> None:
    names = [f"{key}0" for key in KEYS]
    taken = 0
    for a, b, how in pairs(names):
        arrays = {name: array for name, array in arrays_of(np.dtype(dtype)).items() if "0" in name}
        if not shared(arrays, a, b, how):
            continue

        def step(of: dict[str, np.ndarray]) -> None:
            arguments = {k: v for k, v in HYPER.items() if k != "amsgrad"}
            adam_step(*(of[name] for name in names), t=3, **arguments)

        taken += check((dtype, a, b, how), arrays, step, a, b)
    assert taken > 50


def optimizer(arrays: dict[str, np.ndarray], hooked: str, clip: bool) -> Adam:
    """An optimizer of two parameters with these arrays as its states, two steps on."""
    params = [Parameter(arrays[f"p{i}"], name=f"w{i}") for i in (0, 1)]
    link = Link()
    with link.init_scope():
        link.w0, link.w1 = params
    opt = Adam(**HYPER).setup(link)
    for i, param in enumerate(params):
        rule = param.update_rule
        rule._state = {key: arrays[f"{key}{i}"] for key in ADAM.state}
        rule.t = 2
        if str(i) in hooked:
            rule.add_hook(lambda rule, param: None, "nothing")
    if clip:
        opt.add_hook(fastadam.optimizer_hooks.GradientClipping(1.0))
    return opt


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("dtype", "hooked", "clip", "scale"),
    [
        ("f8", "", False, None),
        ("f4", "0", False, None),
        ("f4", "1", True, None),
        ("f4", "", True, 8.0),
        ("f2", "01", False, 4.0),
        ("f2", "", False, None),
    ],
)
def test_optimizers(dtype: str, hooked: str, clip: bool, scale: float | None, own: bool) -> None:
    taken = 0
    for a, b, how in pairs([f"{key}{i}" for i in (0, 1) for key in KEYS]):
        if dtype == "f4" and hooked and how not in ("one", "shifted by one", "strided"):
            continue
        if (a[0], b[0]) == ("p", "p") and how != "side by side":
            # parameters of links that share memory are stepped one after the other
            continue
        arrays = arrays_of(np.dtype(dtype))
        if not shared(arrays, a, b, how):
            continue

        def step(of: dict[str, np.ndarray]) -> None:
            opt = optimizer(of, hooked, clip)
            link = opt.target
            if own:
                link.w0.grad, link.w1.grad = of["g0"], of["g1"]
                link.w0._loss_scale = link.w1._loss_scale = scale
                opt.update()
            else:
                opt.apply_gradients({"w0": of["g0"], "w1": of["g1"]}, loss_scale=scale)
            assert [link.w0.update_rule.t, link.w1.update_rule.t] == [3, 3]

        taken += check((dtype, hooked, clip, scale, own, a, b, how), arrays, step, a, b)
    assert taken > 40


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("clip", [False, True])
def test_repeated_updates(dtype: str, clip: bool) -> None:
    """Two updates with gradients of their own, then one with a gradient that is part of a state."""
    for key, i, how in itertools.product(WRITTEN, (0, 1), PLACINGS):
        for first in (0, 1):
            found = []
            for copied in (False, True):
                params = {"a": drawn(1, "p").astype(dtype), "b": drawn(2, "p").astype(dtype)}
                opt = Adam(**HYPER).setup(params)
                if clip:
                    opt.add_hook(fastadam.optimizer_hooks.GradientClipping(1.0))
                rules = [opt.parameters[path].update_rule for path in "ab"]
                for seed in (3, 4):
                    opt.apply_gradients(
                        {k: drawn(seed + ord(k), "g").astype(dtype) for k in params}
                    )
                size, place = PLACINGS[how]
                wide = params["a"].dtype if key == "p" else rules[0].state["m"].dtype
                target, view = place(np.zeros(size, wide))
                if not target.flags.c_contiguous:
                    continue
                if key == "p":
                    path = "ab"[i]
                    target[...] = params[path]
                    params[path] = target
                else:
                    target[...] = rules[i].state[key]
                    rules[i].state[key] = target
                usual = drawn(9, "g").astype(dtype)
                # once with an ordinary gradient, so that the new place is known
                opt.apply_gradients({"a": usual, "b": usual})
                opt.apply_gradients({"a": usual, "b": usual})
                gradient = view.copy() if copied else view
                grads = {"a": gradient, "b": usual} if first == 0 else {"a": usual, "b": gradient}
                opt.apply_gradients(grads)
                found.append(
                    [
                        *(array.tobytes() for array in params.values()),
                        *(array.tobytes() for rule in rules for array in rule.state.values()),
                    ]
                )
            if found:
                assert found[0] == found[1], (dtype, key, i, how, first)


@pytest.mark.parametrize("hooked", [False, True])
def test_masters(hooked: bool) -> None:
    """A state or a gradient in the memory of a half-precision parameter, or of its master."""
    for dtype, key, other, repeated in itertools.product(
        ("f2",), ("m", "v", "g"), ("half", "master"), (False, True)
    ):
        for i in (0, 1):
            found = []
            for copied in (False, True):
                buffer = np.zeros(2 * N, dtype)
                params = {"a": buffer[:N], "b": np.zeros(N, dtype)}
                params["a"][...], params["b"][...] = drawn(1, "p"), drawn(2, "p")
                opt = Adam(**HYPER).setup(params)
                opt.use_fp32_update()
                if hooked:
                    opt.parameters["b"].update_rule.add_hook(lambda rule, param: None, "nothing")
                usual = drawn(3, "g").astype(dtype)
                for _ in range(3 if repeated else 1):
                    opt.apply_gradients({"a": usual, "b": usual})
                rules = [opt.parameters[path].update_rule for path in "ab"]
                grads = {"a": usual, "b": usual}
                master = rules[0]._fp32_param.array
                shared_memory = buffer.view("f4")[:N] if other == "half" else master
                if key == "g":
                    gradient = params["a"] if other == "half" else master
                    grads["ab"[i]] = gradient.copy() if copied else gradient
                elif not copied:
                    rules[i].state[key] = shared_memory
                    before = [array.tobytes() for array in (*params.values(), master)]
                    with pytest.raises(ValueError, match="share memory"):
                        opt.apply_gradients(grads)
                    assert [array.tobytes() for array in (*params.values(), master)] == before
                    assert opt.t == rules[0].t == rules[1].t
                    continue
                opt.apply_gradients(grads)
                found.append([array.tobytes() for array in (*params.values(), master)])
            if key == "g":
                assert found[0] == found[1], (key, other, repeated, i)


def test_frozen_parameters_and_states_of_others() -> None:
    """What a frozen parameter holds is not written through another's state."""
    tree = {"a": np.ones(4), "b": np.ones(4)}
    opt = Adam().setup(tree)
    a, b = (opt.parameters[path].update_rule for path in "ab")
    b.enabled = False
    opt.apply_gradients({"a": np.ones(4), "b": None})
    good = a.state["m"]
    a.state["m"] = tree["b"]
    with pytest.raises(ValueError, match=r"'a'.*'b'|'b'.*'a'"):
        opt.apply_gradients({"a": np.ones(4), "b": None})
    np.testing.assert_array_equal(tree["b"], np.ones(4))
    a.state["m"] = good
    opt.apply_gradients({"a": np.ones(4), "b": None})
    assert (a.t, b.t) == (2, 0)


def test_a_gradient_that_is_the_parameter_is_read_anew() -> None:
    """The gradient of sum(w**2) / 2 is w itself, now as later."""
    for hooked in (False, True):
        link, twin = Link(), Link()
        for each in (link, twin):
            with each.init_scope():
                each.w = Parameter(np.array([1.0, -2.0]))
                each.x = Parameter(np.ones(2))
        opts = [Adam(alpha=0.1).setup(each) for each in (link, twin)]
        link.w.grad = link.w.array
        for opt in opts:
            if hooked:
                opt.target.x.update_rule.add_hook(lambda rule, param: None, "nothing")
        for _ in range(4):
            twin.w.grad = twin.w.array.copy()
            for opt in opts:
                opt.update()
        assert link.w.grad is link.w.array
        assert link.w.array.tobytes() == twin.w.array.tobytes()


def test_a_gradient_that_reaches_into_a_rounded_parameter_from_the_first_update_on() -> None:
    # at the first update masters are rounded after all steps, later on with each of them
    for dtype in (np.float16, np.float32):
        for begin in (0, 5, 7, 12, 20):
            found = []
            for copied in (False, True):
                memory = np.linspace(-1, 1, 40).astype(dtype)
                opt = Adam(alpha=0.1)
                opt.use_fp32_update()
                opt.setup({"a": memory[:10], "b": memory[12:22], "c": memory[30:]})
                for _ in range(4):
                    gradient = memory[begin : begin + 10]
                    ones = np.ones(10, dtype)
                    given = gradient.copy() if copied else gradient
                    opt.apply_gradients({"a": ones, "b": given, "c": ones})
                state = opt.parameters["b"].update_rule.state
                found.append((memory, state["m"], state["v"]))
            np.testing.assert_equal(*found, err_msg=f"{dtype} {begin}")
