"""What an optimizer keeps from one update to the next never shows: small cases, one a fault."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, Chain, Link, Parameter
from fastadam.optimizer_hooks import GradientClipping, WeightDecay
from fastadam.optimizers.adam_rule import AdamRule
from fastadam.update.folded import Folded

LOOKS: dict[str, Callable[[Any], Any]] = {
    "parameters": lambda opt: opt.parameters,
    "equality": lambda opt: opt == Adam().setup({"w": np.ones(1)}),
    "compare": lambda opt: fastadam.compare(opt, opt),
    "snapshot": fastadam.snapshot,
    "serialize": lambda opt: fastadam.serializers.DictionarySerializer().save(opt),
    "repr": repr,
    "copy": copy.deepcopy,
}


def ones(params: Any) -> dict[str, Any]:
    return {key: np.full(3, 1.0 + i) for i, key in enumerate(sorted(params))}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_between_a_change_and_an_update(look: str) -> None:
    """A key that goes, keys in another order, an array in another's place."""
    for change in ("none", "delete", "reorder", "swap", "replace", "add"):
        opts = []
        for looks in (False, True):
            params = {f"k{i}": np.full(3, float(i)) for i in range(20)}
            opt = Adam(alpha=0.1).setup(params)
            for _ in range(3):
                opt.apply_gradients(ones(params))
            if change == "delete":
                del params["k19"]
            elif change == "reorder":
                params["k3"] = params.pop("k3")
            elif change == "swap":
                params["k1"], params["k2"] = params["k2"], params["k1"]
            elif change == "replace":
                params["k1"] = np.zeros(3)
                gc.collect()
            elif change == "add":
                params["new"] = np.zeros(3)
            if looks:
                LOOKS[look](opt)
            for _ in range(2):
                opt.apply_gradients(ones(params))
            opts.append(opt)
        assert not fastadam.compare(*opts), (look, change)


def chain() -> Any:
    model = Chain()
    with model.init_scope():
        model.l1, model.l2 = Link(), Link()
    for i, link in enumerate((model, model.l1, model.l2)):
        with link.init_scope():
            link.W, link.b = Parameter(np.full(3, 1.0 + i)), Parameter(np.full(3, 2.0 + i))
    return model


class Holder:
    def __init__(self, params: list[Any]) -> None:
        self.held = params

    def params(self) -> Any:
        return iter(self.held)


def lose(model: Any) -> None:
    del model.l1.W


def gain(model: Any) -> None:
    with model.l1.init_scope():
        model.l1.A = Parameter(np.zeros(3))


def exchange(model: Any) -> None:
    model.l1.W, model.l2.W = model.l2.W, model.l1.W


def lose_a_link(model: Any) -> None:
    del model.l1


def unannounced(model: Any) -> None:
    vars(model.l1)["W"], vars(model.l2)["W"] = model.l2.W, model.l1.W


def unregistered(model: Any) -> None:
    model.l1._params.discard("W")


def walked_otherwise(model: Any) -> None:
    walk = model.namedparams
    model.namedparams = lambda *args: reversed(list(walk(*args)))


@pytest.mark.parametrize("look", ["nothing", *LOOKS])
def test_links_that_change(look: str) -> None:
    changes = (lose, gain, exchange, lose_a_link, unannounced, unregistered, walked_otherwise)
    for change in changes:
        seen = []
        for forgets in (False, True):
            model = chain()
            opt = Adam(alpha=0.1).setup(model)
            for step in range(6):
                if step == 3:
                    change(model)
                    if look in LOOKS and look != "copy":
                        LOOKS[look](opt)
                for path, param in model.namedparams():
                    param.grad = np.full(3, float(len(path)) + step)
                if forgets:
                    opt._plan = None
                opt.update()
            seen.append([(p, x.array.tolist()) for p, x in model.namedparams()])
        assert seen[0] == seen[1], (look, change.__name__)


def test_an_object_with_params_that_changes() -> None:
    params = [Parameter(np.full(3, float(i))) for i in range(4)]
    holder = Holder(list(params))
    opt = Adam(alpha=0.1).setup(holder)
    expected = {id(p): p.array.copy() for p in params}
    alone = {id(p): Adam(alpha=0.1).setup(expected[id(p)]) for p in params}
    held = [params, params, params[::-1], params[1:], params[1:], [params[3], params[0]], params]
    for step, now in enumerate(held):
        holder.held = list(now)
        if step % 2:
            len(opt.parameters)
        for i, param in enumerate(now):
            param.grad = np.full(3, 1.0 + i + step)
            alone[id(param)].apply_gradients(param.grad)
        opt.update()
        for param in params:
            assert param.array.tolist() == expected[id(param)].tolist(), step


def test_hyperparameters_written_past_their_owner() -> None:
    def run(opt: Any, params: Any, write: Callable[[str, Any, float], None]) -> list[float]:
        for step in range(6):
            if step == 2:
                write("all", opt.hyperparam, 0.5)
            if step == 4:
                write("one", opt.parameters["b"].update_rule.hyperparam, 0.25)
            opt.apply_gradients({key: np.ones(3) for key in params})
        return [array.tolist() for array in params.values()]

    runs = []
    for how in (setattr, lambda bag, name, value: vars(bag).update({name: value})):
        params = {"a": np.ones(3), "b": np.ones(3)}
        opt = Adam(alpha=0.1).setup(params)
        runs.append(run(opt, params, lambda _, bag, value, how=how: how(bag, "alpha", value)))
    assert runs[0] == runs[1]


def test_rules_changed_past_their_owner() -> None:
    """What is in the dict of a rule, its class, and its hooks is compared."""

    class Own(AdamRule):
        pass

    def freeze(rule: Any) -> None:
        vars(rule)["enabled"] = False

    def hook(rule: Any) -> None:
        rule._hooks._hooks["pre"]["x"] = lambda rule, param: called.append(1)

    def core(rule: Any) -> None:
        vars(rule)["update_core"] = lambda param: called.append(2)

    def patch(rule: Any) -> None:
        Own.update_core = lambda self, param: called.append(3)

    for change, expected in ((freeze, []), (hook, [1]), (core, [2]), (patch, [3, 3])):
        called: list[int] = []
        params = {"a": np.ones(3), "b": np.ones(3)}
        opt = Adam(alpha=0.1).setup(params)
        for param in opt.parameters.values():
            param.update_rule = Own(opt.hyperparam)
        for _ in range(3):
            opt.apply_gradients(ones(params))
        before = params["b"].copy()
        change(opt.parameters["b"].update_rule)
        opt.apply_gradients(ones(params))
        assert called == expected, change.__name__
        assert (params["b"] == before).all() == (change is not hook)
        if change is patch:
            del Own.update_core


def test_somebody_elses_rule_costs_nothing() -> None:
    params = {"a": np.ones(3), "b": np.ones(3)}
    opt = Adam().setup(params)
    for _ in range(3):
        opt.apply_gradients(ones(params))
    kept = opt._plan
    for _ in range(3):
        AdamRule()
        chain()
        Adam().setup({"w": np.ones(2)}).add_hook(WeightDecay(0.1))
        opt.apply_gradients(ones(params))
    assert opt._plan is kept


def test_a_state_without_what_is_needed() -> None:
    for lacking in (("m", "v"), ("v",), ("m",)):
        for hooked in (False, True):
            params = {"a": np.ones(3), "b": np.ones(3)}
            opt = Adam(alpha=0.1).setup(params)
            if hooked:
                opt.parameters["b"].update_rule.add_hook(lambda rule, param: None, "x")
            for _ in range(2):
                opt.apply_gradients(ones(params))
            before = fastadam.snapshot(opt)
            state = opt.parameters["b"].update_rule.state
            kept = {key: state.pop(key) for key in lacking}
            names = ", ".join(map(repr, lacking))
            with pytest.raises(ValueError, match=f"'b': its rule's state lacks {names}"):
                opt.apply_gradients(ones(params))
            state.update(kept)
            assert not fastadam.compare(opt, before) or hooked, (lacking, hooked)
            rule = opt.parameters["b"].update_rule
            state.clear()
            rule.init_state(opt.parameters["b"])
            rule.t = 0
            opt.apply_gradients(ones(params))


def test_lent_gradients_are_never_written() -> None:
    for scale, clip in ((8.0, None), (None, 1.0), (8.0, 0.5), (3.0, None)):
        for dtype in (np.float32, np.float64):
            link = Link()
            with link.init_scope():
                link.w = Parameter(np.zeros(2, dtype))
            opt = Adam().setup(link)
            if clip is not None:
                opt.add_hook(GradientClipping(clip))
            mine = np.full(2, 8.0, dtype)
            for step in range(5):
                link.w.lend_grad(mine)
                link.w._loss_scale = scale
                opt.update()
                assert mine.tolist() == [8, 8], (scale, clip, step)
            if (scale, clip) == (8.0, None):
                m = link.w.update_rule.state["m"]
                np.testing.assert_allclose(m, 1 - 0.9**5, rtol=1e-6)


def halve(opt: Any) -> None:
    opt.target.w.grad *= 0.5


@pytest.mark.parametrize("how", ["scale", "decay", "hook"])
@pytest.mark.parametrize("state", [False, True])
def test_a_gradient_that_is_of_a_frozen_parameter_is_not_written(how: str, state: bool) -> None:
    """The gradient of sum(w * frozen) is the frozen parameter itself, or its state is somewhere."""
    link = Link()
    with link.init_scope():
        link.w, link.frozen = Parameter(np.ones(3, "f4")), Parameter(np.full(3, 2, "f4"))
    opt = Adam().setup(link)
    link.w.grad, link.frozen.grad = np.ones(3, "f4"), np.ones(3, "f4")
    opt.update()
    if how != "scale":
        opt.add_hook(WeightDecay(0.5) if how == "decay" else halve)
    link.frozen.update_rule.enabled = False
    held = link.frozen.update_rule.state["m"] if state else link.frozen.array
    before = held.copy()
    for i in range(4):
        link.w.grad = np.ones(3, "f4") if i == 0 else held
        link.w._loss_scale = 8.0 if how == "scale" else None
        opt.update()
        np.testing.assert_array_equal(held, before)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_gradient_is_let_go_when_an_update_is_refused(hooked: bool) -> None:
    """Whether the error comes in a hook that is folded into the step, or before."""
    opt = Adam().setup({"w": np.ones(3, "f4")})
    opt.apply_gradients({"w": np.ones(3, "f4")})
    decay = WeightDecay(0.5)
    if hooked:
        opt.add_hook(decay)
        decay.__dict__["rate"] = "none"
    grad = np.ones(3, "f4")
    given = weakref.ref(grad)
    if hooked:
        with pytest.raises((TypeError, ValueError)):
            opt.apply_gradients({"w": grad})
    else:
        opt.apply_gradients({"w": grad})
    del grad
    assert given() is None


def test_a_gradient_is_let_go_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes on the way of a step that has been read."""

    def none(_: Folded) -> None:
        raise MemoryError

    opt = Adam().setup({"w": np.ones(3, "f4")})
    opt.add_hook(WeightDecay(0.5))
    for _ in range(2):
        opt.apply_gradients({"w": np.ones(3, "f4")})
    monkeypatch.setattr(Folded, "_programs", none)
    grad = np.ones(3, "f4")
    given = weakref.ref(grad)
    with pytest.raises(MemoryError):
        opt.apply_gradients({"w": grad})
    del grad
    assert given() is None
    assert opt.t == 2


def test_a_gradient_that_grows_into_the_parameter_at_the_same_address() -> None:
    n = 2000
    results = []
    for apart in (False, True):
        memory = np.zeros(8 * n, np.uint8)
        p = memory[2 * n : 6 * n].view(np.float32)
        p[:] = np.linspace(0.5, 1.5, n)
        half, single = memory[: 2 * n].view(np.float16), memory[: 4 * n].view(np.float32)
        half[:] = 1
        opt = Adam(alpha=0.1).setup({"p": p})
        for _ in range(3):
            opt.apply_gradients({"p": half})
        for _ in range(2):
            opt.apply_gradients({"p": single.copy() if apart else single})
        results.append(p.copy())
    assert results[0].tobytes() == results[1].tobytes()


def test_a_gradient_that_another_parameters_step_would_change() -> None:
    """Even where the two are not stepped in one call."""
    results = []
    for apart in (False, True):
        params = {"a": np.ones(3), "b": np.ones(3), "c": np.ones(3)}
        opt = Adam(alpha=0.1).setup(params)
        opt.parameters["b"].update_rule.add_hook(lambda rule, param: None, "x")
        for _ in range(3):
            grads = {"a": params["c"], "b": params["a"], "c": params["b"]}
            if apart:
                grads = {key: grad.copy() for key, grad in grads.items()}
            opt.apply_gradients(grads)
        results.append([array.tolist() for array in params.values()])
    assert results[0] == results[1]


def test_a_byte_swapped_half_gradient_under_hooks() -> None:
    results = []
    for order in "<>":
        params = {"w": np.linspace(-1, 1, 50).astype(np.float16)}
        opt = Adam(alpha=0.1, eps=1e-3).setup(params)
        opt.add_hook(WeightDecay(0.3))
        for step in range(4):
            grad = np.linspace(-2, 1 + step, 50).astype(np.float16).astype(f"{order}f2")
            opt.apply_gradients({"w": grad})
        results.append((params["w"].tolist(), opt.parameters["w"].update_rule.state["m"].tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_of_views_of_one_memory_share_it(way: Any) -> None:
    shapes: tuple[Callable[[Any], Any], ...] = (
        lambda w: {"a": w, "b": w[:]},
        lambda w: {"b": w[:], "a": w},
        lambda w: [w, {"x": w[:]}, w],
        lambda w: (w, w[:]),
        lambda w: {"a": w, "b": w},
    )

    def filled(tree: Any) -> Any:
        if isinstance(tree, np.ndarray):
            return np.ones(4)
        if isinstance(tree, dict):
            return {key: filled(child) for key, child in tree.items()}
        return [filled(child) for child in tree]

    for make in shapes:
        opt = Adam(alpha=0.1).setup(make(np.arange(12.0)[::3]))
        for _ in range(3):
            opt.apply_gradients(filled(opt.target))
        twin = way(opt)
        for each in (opt, twin):
            each.apply_gradients(filled(each.target))
        assert not fastadam.compare(opt, twin)
        assert len(twin.parameters) == 1


@pytest.mark.parametrize("way", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_of_parameters_of_one_memory_share_it(way: Any) -> None:
    link, w = Link(), np.ones(3)
    with link.init_scope():
        link.a, link.b = Parameter(w), Parameter(w[:])
    opt = Adam(alpha=0.1).setup(link)
    twin = way(opt)
    for each in (opt, twin):
        for _ in range(3):
            for param in each.target.params():
                param.grad = np.ones(3)
            each.update()
    assert not fastadam.compare(opt, twin)
    assert np.shares_memory(twin.target.a.array, twin.target.b.array)


def test_an_optimizer_is_freed_as_soon_as_nobody_has_it() -> None:
    # its moments may be gigabytes, which are not to wait for a collection of cycles
    cases: dict[str, Callable[[Adam], Any]] = {
        "plain": lambda opt: None,
        "clipping": lambda opt: opt.add_hook(GradientClipping(1.0)),
        "hook": lambda opt: opt.add_hook(WeightDecay(1e-3)),
        "loss scaling": lambda opt: opt.loss_scaling(),
        "masters": lambda opt: opt.use_fp32_update(),
        "looks": lambda opt: (repr(opt), opt.parameters, copy.deepcopy(opt), opt == opt),
    }
    gc.collect()
    gc.disable()
    try:
        for name, prepare in cases.items():
            for updates in (0, 1, 3):
                for kind in ("arrays", "link"):
                    link = Link()
                    with link.init_scope():
                        link.w = Parameter(np.ones(2, np.float32))
                    opt = Adam().setup(link if kind == "link" else {"w": np.ones(2, np.float32)})
                    prepare(opt)
                    for _ in range(updates):
                        opt.apply_gradients({"w": np.ones(2, np.float32)})
                    ref = weakref.ref(opt)
                    del opt
                    assert ref() is None, (name, updates, kind)
    finally:
        gc.enable()


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="looks behind an array")
def test_arrays_that_shrink_where_they_are_are_not_stepped_beyond_their_end() -> None:
    w = np.array([1.0, 2.0, 3.0])
    opt = fastadam.Adam().setup({"w": w})
    for _ in range(3):
        opt.apply_gradients({"w": np.ones(3)})
    arrays = [w, *opt.parameters["w"].update_rule.state.values()]
    places = [array.ctypes.data for array in arrays]
    for array in arrays:
        array.resize(2, refcheck=False)
    if places != [array.ctypes.data for array in arrays]:
        pytest.skip("the arrays have got other memory")
    behind = [ctypes.c_double.from_address(place + 16) for place in places]
    before = [number.value for number in behind]
    left = w.copy()
    opt.apply_gradients({"w": np.ones(2)})
    assert [number.value for number in behind] == before
    assert np.all(w < left)
