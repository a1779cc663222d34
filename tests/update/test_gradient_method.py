"""What an update leaves when it is refused, and what it makes of loss scales and copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastadam
from fastadam.serializers import DictionarySerializer, NpzDeserializer


def a_link() -> fastadam.Link:
    """A link with two parameters that have gradients."""
    link = fastadam.Link()
    with link.init_scope():
        link.W = fastadam.Parameter(np.ones((2, 3), np.float32))
        link.b = fastadam.Parameter(np.ones(3, np.float32))
    link.W.grad = np.full((2, 3), 0.5, np.float32)
    link.b.grad = np.full(3, -2.0, np.float32)
    return link


@pytest.mark.parametrize("by_itself", [False, True])
@pytest.mark.parametrize("dtype", ["g", "F", "D", "i", "?", ">f2", ">f4", ">f8"])
def test_unsupported_dtypes_are_refused_by_name(dtype: str, by_itself: bool) -> None:
    w, good = np.ones(2, dtype), np.ones(2)
    with pytest.raises(TypeError, match="parameter 'w'"):
        fastadam.Adam(eps=1e-3).setup({"good": good, "w": w})
    # one that comes later
    params = {"good": good, "w": np.ones(2)}
    opt = fastadam.Adam(eps=1e-3).setup(params)
    if by_itself:
        opt.parameters["w"].update_rule.add_hook(lambda rule, param: None, "nothing")
        opt.parameters["good"].update_rule.add_hook(lambda rule, param: None, "nothing")
        opt.parameters["good"].update_rule.enabled = False
    rules = [param.update_rule for param in opt.parameters.values()]
    params["w"] = w
    with pytest.raises(TypeError, match="parameter 'w'"):
        opt.apply_gradients({"good": np.ones(2), "w": np.ones(2)})
    assert opt.t == 0
    np.testing.assert_array_equal(good, 1)
    np.testing.assert_array_equal(w, np.ones(2, dtype))
    for rule in rules:
        assert rule.t == 0
        assert rule.state is None


def test_a_refused_update_makes_no_vhat_either() -> None:
    params = {"w": np.ones(2), "z": np.ones(2)}
    opt = fastadam.Adam().setup(params)
    opt.apply_gradients(params)
    opt.amsgrad = True
    opt.parameters["z"].update_rule.hyperparam.eps = 1e-500 + 5e-324
    opt.parameters["z"].update_rule.state["m"] = np.zeros(3)
    with pytest.raises(ValueError, match="'z'"):
        opt.apply_gradients(params)
    assert set(opt.parameters["w"].update_rule.state) == {"m", "v"}
    assert opt.t == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_remembers_rules_that_were_taken_away(copied: object) -> None:
    link = a_link()
    opt = fastadam.Adam().setup(link)
    link.b.update_rule = None
    again = copied(opt)
    again.apply_gradients({"W": np.ones((2, 3)), "b": np.ones(3)})
    assert again.target.b.update_rule is None
    np.testing.assert_array_equal(again.target.b.array, 1)
    assert np.all(again.target.W.array != 1)


@pytest.mark.parametrize("by_itself", [False, True])
def test_scaled_gradients_are_unscaled_once(by_itself: bool) -> None:
    scaled, plain = a_link(), a_link()
    optimizers = [fastadam.Adam(eps=0.1).setup(link) for link in (scaled, plain)]
    for param in scaled.params():
        param.grad *= 8
        param._loss_scale = 8
        if by_itself:
            param.update_rule.add_hook(lambda rule, param: None, "nothing")
    seen = []
    optimizers[0].add_hook(lambda opt: seen.append(opt.target.b.grad.copy()), "look")
    for _ in range(3):
        for opt in optimizers:
            opt.update()
    for mine, theirs in zip(scaled.params(), plain.params(), strict=True):
        np.testing.assert_array_equal(mine.array, theirs.array)
        np.testing.assert_array_equal(mine.grad, theirs.grad)
        assert mine._loss_scale is None
    np.testing.assert_array_equal(seen[0], -2)


def test_a_rule_by_itself_unscales_too() -> None:
    scaled, plain = a_link().b, a_link().b
    scaled.grad *= 4
    scaled._loss_scale = 4
    for param in (scaled, plain):
        fastadam.AdamRule(eps=0.1).update(param)
    np.testing.assert_array_equal(scaled.array, plain.array)


def test_state_of_an_uninitialised_parameter_may_be_missing() -> None:
    """Chainer counts updates of uninitialised parameters, and saves no state for them."""
    link = fastadam.Link()
    with link.init_scope():
        link.z = fastadam.Parameter()
    opt = fastadam.Adam().setup(link)
    stored = {"t": np.array(3), "epoch": np.array(1), "z/t": np.array(3)}
    NpzDeserializer(stored).load(opt)
    assert (opt.t, opt.epoch) == (3, 1)
    assert link.z.update_rule.state is None
    link.z.initialize(2)
    with pytest.raises(KeyError, match="z/m"):
        NpzDeserializer(stored).load(opt)


def test_a_target_with_nothing_but_params() -> None:
    class Model:
        def __init__(self) -> None:
            self.w = fastadam.Parameter(np.ones(2), name="w")

        def params(self) -> list[fastadam.Parameter]:
            return [self.w]

    class Loss:
        def __init__(self, model: Model) -> None:
            self.model = model

        def backward(self, loss_scale: float | None = None) -> None:
            assert self.model.w._grad is None
            self.model.w.grad = 2 * self.model.w.array

    model = Model()
    model.w.grad = np.zeros(2)
    opt = fastadam.Adam(alpha=0.25).setup(model)
    loss = opt.update(Loss, model)
    assert isinstance(loss, Loss)
    np.testing.assert_allclose(model.w.array, 0.75)
    target = DictionarySerializer()
    target.save(opt)
    assert {"t", "epoch", "0/t", "0/m", "0/v"} == set(target.target)


def test_arrays_have_no_backward_pass() -> None:
    class Loss:
        def backward(self, loss_scale: float | None = None) -> None:
            raise AssertionError

    opt = fastadam.Adam().setup(np.ones(2))
    with pytest.raises(TypeError, match=r"pair \(loss, gradients\)"):
        opt.update(Loss)
    assert opt.t == 0


def test_lent_gradients_are_not_divided_by_an_old_scale() -> None:
    link, plain = a_link(), a_link()
    link.W._loss_scale = 8
    for target in (link, plain):
        fastadam.Adam(eps=0.1).setup(target).apply_gradients({"W": np.ones((2, 3)), "b": None})
    np.testing.assert_array_equal(link.W.array, plain.W.array)


def test_repr_of_an_optimizer_whose_target_has_gone_wrong() -> None:
    params: dict[str, object] = {"w": np.ones(3)}
    opt = fastadam.Adam().setup(params)
    params["w"] = 1.5
    assert "1 parameter, 3 elements" in repr(opt)
    with pytest.raises(TypeError, match="'w'"):
        opt.update(lambda: (0.0, {"w": 1.0}))


@pytest.mark.parametrize("name", ["update_batch", "check_batch"])
def test_a_subclass_with_a_batch_of_its_own(name: str) -> None:
    calls = []

    def mine(cls: type, rules: list[object], params: list[object]) -> None:
        calls.append((cls.__name__, len(rules)))
        getattr(super(rule_class, cls), name)(rules, params)

    rule_class = type("Rule", (fastadam.AdamRule,), {name: classmethod(mine)})
    params = {"a": np.ones(2), "b": np.ones(3), "c": np.ones(4)}
    opt = fastadam.Adam().setup(params)
    for path in ("b", "c"):
        opt.parameters[path].update_rule = rule_class(opt.hyperparam)
    opt.apply_gradients(params)
    assert calls == [("Rule", 2)]
    assert all(param.update_rule.t == 1 for param in opt.parameters.values())


def test_loading_makes_no_state_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    link = a_link()
    opt = fastadam.Adam().setup(link)
    opt.update()
    saved = DictionarySerializer()
    saved.save(opt)
    monkeypatch.setattr(fastadam.AdamRule, "init_state", None)
    NpzDeserializer(saved.target).load(opt)


def test_a_file_from_before_the_first_update_takes_the_state_away() -> None:
    stored = {"t": np.array(0), "epoch": np.array(0), "W/t": np.array(0), "b/t": np.array(0)}
    for strict in (True, False):
        link = a_link()
        opt = fastadam.Adam().setup(link)
        opt.update()
        NpzDeserializer(stored, strict=strict).load(opt)
        assert [param.update_rule.t for param in link.params()] == [0, 0]
        assert [param.update_rule.state for param in link.params()] == [None, None]


def test_post_hooks_see_clipped_gradients_at_every_update() -> None:
    link, seen = a_link(), []
    opt = fastadam.Adam().setup(link)
    opt.add_hook(fastadam.optimizer_hooks.GradientClipping(1.0))
    opt.add_hook(lambda opt: seen.append(opt.target.b.grad.copy()), "look", timing="post")
    norm = np.sqrt(6 * 0.5**2 + 3 * 2.0**2)
    for _ in range(4):
        opt.apply_gradients({"/W": np.full((2, 3), 0.5), "/b": np.full(3, -2.0)})
    for b in seen:
        np.testing.assert_allclose(b, np.full(3, -2.0) / norm, rtol=1e-6)
    assert len(seen) == 4
