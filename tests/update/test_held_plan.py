"""What a plan that is held must see before it is used: nothing is trusted to be as it was."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastadam import Adam, AdamRule, Link, Parameter
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16")

NUMBERS = {"alpha": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}


def arrays() -> dict[str, np.ndarray]:
    return {"a": np.linspace(-1, 1, 5), "b": np.linspace(2, 3, 4)}


def gradients(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {"a": rng.standard_normal(5), "b": rng.standard_normal(4)}


def seen(opt: Any) -> Any:
    found: dict[str, Any] = {"t": opt.t}
    for path, param in opt.parameters.items():
        rule = param.update_rule
        state = {key: array.tobytes() for key, array in (rule.state or {}).items()}
        found[path] = param.array.tobytes(), rule.t, state
    return found


def same_as_forgotten(make: Callable[[], Any], play: Callable[[Any, bool], None]) -> None:
    """Play with an optimizer that holds its plan, and with one that forgets it."""
    held, forgetful = make(), make()
    play(held, False)
    play(forgetful, True)
    assert seen(held) == seen(forgetful)


def forget(opt: Any, forgets: bool) -> None:
    if forgets:
        opt._plan = None


def test_a_hook_that_removes_itself_is_seen() -> None:
    def play(opt: Any, forgets: bool) -> None:
        for step in range(2):
            opt.apply_gradients(gradients(step))

        def once(opt: Any) -> None:
            param = opt.parameters["a"]
            param.grad = -5 * param.grad
            param.update_rule.hyperparam.alpha = 0.5
            opt.remove_hook("once")

        opt.add_hook(once, "once")
        forget(opt, forgets)
        opt.apply_gradients(gradients(3))

    same_as_forgotten(lambda: Adam(**NUMBERS).setup(arrays()), play)
    opt, plain = (Adam(**NUMBERS).setup(arrays()) for _ in range(2))
    play(opt, False)
    for step in (0, 1, 3):
        plain.apply_gradients(gradients(step))
    assert seen(opt)["a"] != seen(plain)["a"]


def test_a_count_set_to_nought_does_not_bring_back_what_was_done_to_gradients() -> None:
    def play(opt: Any, forgets: bool) -> None:
        for step in range(3):
            opt.apply_gradients(gradients(step), loss_scale=8.0)
        opt.t = 0
        forget(opt, forgets)
        opt.apply_gradients(gradients(4))

    same_as_forgotten(lambda: Adam(**NUMBERS).setup(arrays()), play)


def test_gradients_of_other_libraries_floating_types() -> None:
    param = Parameter(np.ones(3))
    param.lend_grad(np.ones(3, ml_dtypes.float8_e5m2))
    AdamRule(**NUMBERS).update(param)
    w = {"w": np.ones(3)}
    opt = Adam(**NUMBERS).setup(w)
    for _ in range(2):
        opt.apply_gradients({"w": np.ones(3, ml_dtypes.float8_e5m2)})
    assert opt.t == 2
    other = Parameter(np.ones(3))
    other.grad = np.ones(3)
    AdamRule(**NUMBERS).update(other)
    np.testing.assert_array_equal(param.array, other.array)


def test_a_finalizer_of_a_replaced_array_comes_after_what_is_read() -> None:
    opt = Adam(**NUMBERS).setup(w := {"w": np.ones(3)})
    for _ in range(2):
        opt.apply_gradients({"w": np.ones(3)})
    rule = opt.parameters["w"].update_rule

    class Kept(np.ndarray):
        """Can be referenced weakly."""

    w["w"] = np.ones(3).view(Kept)
    opt.apply_gradients({"w": np.ones(3)})

    def replace() -> None:
        rule.state.update(m=np.full(3, 7.0), v=np.full(3, 9.0))

    weakref.finalize(w["w"], replace)
    w["w"] = np.ones(3)
    rule.state["m"] = np.zeros(3)
    opt.apply_gradients({"w": np.ones(3)})
    gc.collect()
    assert (opt.t, rule.t) == (4, 4)
    # what the finalizer has put there stays, or has been stepped, as a whole
    m, v = (set(rule.state[key].round(6).tolist()) for key in ("m", "v"))
    assert (m, v) in [({7.0}, {9.0}), ({5.8}, {8.6})]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda array, rule: array.setflags(write=False),
        lambda array, rule: rule.state["m"].setflags(write=False),
        lambda array, rule: rule.state.update(v=rule.state["v"].astype("f4")),
        lambda array, rule: rule.state.update(v=rule.state["v"].reshape(2, 2)),
        lambda array, rule: setattr(rule, "t", -1),
        lambda array, rule: setattr(rule, "t", "x"),
    ],
)
@pytest.mark.parametrize("kind", ["hooked", "strided"])
def test_what_one_rule_refuses_stops_all(
    kind: str, spoil: Callable[[np.ndarray, Any], None]
) -> None:
    w = arrays()
    if kind == "strided":
        w["b"] = np.linspace(2, 3, 8)[::2]
    opt = Adam(**NUMBERS).setup(w)
    rule = opt.parameters["b"].update_rule
    if kind == "hooked":
        rule.add_hook(lambda rule, param: None, "nothing")
    for step in range(2):
        opt.apply_gradients(gradients(step))
    spoil(w["b"], rule)
    before = seen(opt)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        opt.apply_gradients(gradients(3))
    assert seen(opt) == before


def test_a_state_given_after_an_update_that_was_interrupted_counts() -> None:
    opt = Adam(**NUMBERS).setup({"w": np.ones(3)})
    opt.add_hook(lambda opt: 1 / 0, "raise")
    with pytest.raises(ZeroDivisionError):
        opt.apply_gradients({"w": np.ones(3)})
    opt.remove_hook("raise")
    other = Adam(**NUMBERS).setup({"w": np.ones(3)})
    for each in (opt, other):
        rule = each.parameters["w"].update_rule
        rule.init_state(each.parameters["w"])
        rule.state["m"][...] = 0.5
        each.apply_gradients({"w": np.ones(3)})
    assert seen(opt) == seen(other)


def test_numbers_that_are_equal_but_not_the_same() -> None:
    def play(opt: Any, forgets: bool) -> None:
        clipping = GradientClipping(0.1)
        opt.add_hook(clipping)
        for step in range(5):
            if step == 3:
                clipping.threshold = np.float32(0.1)
            forget(opt, forgets)
            opt.apply_gradients(gradients(step))

    same_as_forgotten(lambda: Adam(**NUMBERS).setup(arrays()), play)


def test_gradients_of_another_half_type_are_not_rounded_to_it() -> None:
    def play(opt: Any, forgets: bool) -> None:
        opt.use_fp32_update()
        opt.add_hook(WeightDecay(0.3))
        for step in range(4):
            forget(opt, forgets)
            grad = np.random.default_rng(step).standard_normal(9).astype(np.float16)
            opt.apply_gradients({"w": grad})

    def make() -> Any:
        return Adam(**NUMBERS).setup({"w": np.linspace(1, 2, 9).astype(ml_dtypes.bfloat16)})

    same_as_forgotten(make, play)


def test_post_hooks_see_gradients_as_they_were() -> None:
    looked: list[Any] = []
    w = {"w": np.linspace(1, 2, 4)}
    opt = Adam(**NUMBERS).setup(w)
    opt.add_hook(lambda opt: looked.append(opt.parameters["w"].grad.copy()), "look", "post")
    for _ in range(3):
        before = w["w"].copy()
        opt.apply_gradients({"w": w["w"]})
        np.testing.assert_array_equal(looked.pop(), before)


def test_a_hook_of_ours_with_a_way_of_its_own_is_called() -> None:
    called: list[Any] = []
    opt = Adam(**NUMBERS).setup(arrays())
    hook = WeightDecay(0.5)
    opt.add_hook(hook)
    opt.apply_gradients(gradients(0))
    hook.call_for_all = called.append  # type: ignore[method-assign,assignment]
    opt.apply_gradients(gradients(1))
    assert len(called) == 1


def test_gradients_are_let_go_where_nothing_is_done() -> None:
    class Kept(np.ndarray):
        """Can be referenced weakly."""

    opt = Adam(**NUMBERS).setup(arrays())
    opt.apply_gradients(gradients(0))
    opt.apply_gradients(gradients(1))
    opt.on_nonfinite = "raise"
    given = {path: grad.view(Kept) for path, grad in gradients(2).items()}
    given["a"][0] = np.nan
    references = [weakref.ref(grad) for grad in given.values()]
    with pytest.raises(FloatingPointError):
        opt.apply_gradients(given)
    opt.on_nonfinite = "propagate"
    opt.hyperparam.__dict__["beta1"] = "x"
    with pytest.raises(TypeError):
        opt.apply_gradients(given)
    del given
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_batches_go_in_the_order_of_their_first_parameters() -> None:
    order: list[str] = []

    class Own(AdamRule):
        @classmethod
        def update_batch(cls, rules: Any, params: Any) -> None:
            order.append(f"own {params[0].name} {float(rules[0].seen.array[0])}")
            super().update_batch(rules, params)

    model = Link()
    with model.init_scope():
        model.p = Parameter(np.ones(2))
        model.q = Parameter(np.ones(2))
    opt = Adam(**NUMBERS).setup(model)
    rule = Own(opt.hyperparam)
    rule.seen = model.q
    model.p.update_rule = rule
    for _ in range(2):
        opt.apply_gradients({"p": np.ones(2), "q": np.ones(2)})
    before = float(model.q.array[0])
    opt.apply_gradients({"p": np.ones(2), "q": np.ones(2)})
    assert order == ["own p 1.0", order[1], f"own p {before}"]
