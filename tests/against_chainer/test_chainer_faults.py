"""Chainer's faults that docs/faults.rst lists: what each library does.

Those of the faults that other files test, for both libraries, are not here again.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.kernels import multi_tensor


def ones(n: int = 2, dtype: str = "float32") -> np.ndarray:
    return np.ones(n, dtype)


def raises(error: type[BaseException] | None) -> Any:
    """Expect an exception, or none."""
    return contextlib.nullcontext() if error is None else pytest.raises(error)


# B1


def test_integer_parameter(library: Any) -> None:
    link = library.link(W=ones(dtype="int32"))
    if library.is_ours:
        with pytest.raises(TypeError, match="'W'"):
            library.setup(link)
        return
    opt = library.setup(link)
    library.fill_gradients(link)
    with pytest.raises(AttributeError):
        opt.update()


# B8


def test_gradients_of_different_scales_are_added(library: Any) -> None:
    """A gradient of 3 at scale 8, and one of 5 at scale 2."""
    link = library.link(a=ones(), b=ones())
    opt = library.setup(link)
    for param, true, scale in ((link.a, 3, 8), (link.b, 5, 2)):
        param.grad = np.full(2, true * scale, np.float32)
        param._loss_scale = scale
    link.a.addgrad(link.b)
    opt.update()
    assert link.a.grad.tolist() == [library.says(ours=8, theirs=(24 + 10) / 8)] * 2


# B11


def test_beta1_of_one(library: Any) -> None:
    """Refused where it is given: the first moment would stay 0."""
    link = library.link(W=ones())
    if library.is_ours:
        with pytest.raises(ValueError, match="beta1 must be at least 0 and below 1"):
            library.setup(link, beta1=1.0)
        return
    opt = library.setup(link, beta1=1.0)
    library.fill_gradients(link)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        opt.update()
    assert (opt.t, link.W.update_rule.t) == (1, 1)


def test_resumed_bounds(library: Any) -> None:
    """A run that is resumed with an alpha that a schedule has changed."""
    _, opt = library.trained("AdaBound", alpha=0.1)
    opt.alpha = 0.01
    file = library.save(opt)
    link = library.link(W=ones())
    again = library.setup(link, "AdaBound", alpha=0.01)
    library.load(file, again)
    assert (link.W.update_rule.bounds == opt.target.W.update_rule.bounds) == library.is_ours


def test_bounds_of_a_parameter_with_its_own_alpha(library: Any) -> None:
    """Kept: ten times the alpha of the setup is ten times the bounds, as under a schedule."""
    link, opt = library.trained("AdaBound")
    before = link.W.update_rule.bounds
    link.W.update_rule.hyperparam.alpha = opt.alpha * 10
    np.testing.assert_allclose(link.W.update_rule.bounds, np.multiply(before, 10), rtol=1e-12)


# B12


@pytest.mark.parametrize("saved", ["before the first update", "by Adam, for AMSGrad"])
def test_update_after_a_load_that_failed(library: Any, saved: str) -> None:
    kind = "Adam" if saved == "before the first update" else "AMSGrad"
    if kind == "Adam":
        file = library.save(library.setup(library.link(W=ones(3))))
    else:
        file = library.save(library.trained(n=3)[1])
    link = library.link(W=ones(3))
    opt = library.setup(link, kind)
    with contextlib.suppress(KeyError):
        library.load(file, opt)
    library.fill_gradients(link)
    with raises(library.says(ours=None, theirs=ValueError)):
        opt.update()
    assert link.W.update_rule.state["m"].shape == library.says(
        ours=(3,), theirs=(1 if kind == "Adam" else 3,)
    )


def test_file_saved_while_a_parameter_was_uninitialised(library: Any) -> None:
    link = library.link(W=ones(), lazy=None)
    opt = library.setup(link)
    link.cleargrads()
    link.W.grad = ones()
    opt.update()
    other = library.link(W=ones(), lazy=None)
    with raises(library.says(ours=None, theirs=KeyError)):
        library.load(library.save(opt), library.setup(other))
    if library.is_ours:
        assert other.W.update_rule.state["m"].tolist() == link.W.update_rule.state["m"].tolist()


# B18


def test_clipping_without_parameters(library: Any) -> None:
    opt = library.setup(library.link())
    opt.add_hook(library.hooks.GradientClipping(1.0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt.update()
    assert len(caught) == library.says(ours=0, theirs=1)


# B20


@pytest.mark.parametrize("lazily", [False, True])
def test_parameter_without_a_gradient(library: Any, lazily: bool) -> None:
    """Kept, with Chainer's way out of it: to override `reallocate_cleared_grads`."""

    class Lazy(library.optimizers.Adam):  # type: ignore[misc]
        def reallocate_cleared_grads(self) -> None:
            pass

    link = library.link(W=ones())
    opt = (Lazy if lazily else library.optimizers.Adam)(weight_decay_rate=0.25).setup(link)
    library.fill_gradients(link)
    opt.update()
    before = link.W.array.copy()
    link.cleargrads()
    opt.update()
    assert bool(np.all(link.W.array == before)) == lazily
    assert (link.W.grad is None) == lazily


# B21


def test_alpha_t_of_optimizer_and_rule(library: Any) -> None:
    """Kept: each counts its own steps."""
    link, opt = library.trained()
    link.W.update_rule.enabled = False
    opt.update()
    assert (opt.t, link.W.update_rule.t) == (2, 1)
    for t, owner in ((2, opt), (1, link.W.update_rule)):
        expected = 0.001 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        assert owner.alpha_t == pytest.approx(expected, rel=1e-12)
    with pytest.warns(DeprecationWarning, match="alpha_t"):
        assert opt.lr == opt.alpha_t


def test_setting_lr_says_what_to_set(library: Any) -> None:
    message = library.says(ours="set alpha", theirs="lr|setter")
    with pytest.raises(AttributeError, match=message):
        library.optimizers.Adam().lr = 0.1
    with pytest.raises(TypeError, match=library.says(ours="called alpha", theirs="lr")):
        library.optimizers.Adam(lr=0.1)


# B22


def test_rules_keep_no_dtype() -> None:
    """Nothing of a rule but its state knows a dtype, so nothing else is stale, or pickled."""
    param = fastadam.Parameter(np.ones(2, np.float16))
    param.update_rule = rule = fastadam.AdamRule()
    for dtype in (np.float16, np.float64):
        param.array = np.ones(2, dtype)
        param.grad = np.array([0.25, -3], dtype)
        rule._state, rule.t = None, 0
        param.update()
    fresh = fastadam.Parameter(np.ones(2))
    fresh.grad = np.array([0.25, -3])
    fastadam.AdamRule().update(fresh)
    np.testing.assert_array_equal(param.array, fresh.array)
    kept = pickle.loads(pickle.dumps(rule)).__dict__
    assert [key for key, value in kept.items() if isinstance(value, np.ndarray | np.dtype)] == []
    assert {key: value.dtype.name for key, value in kept["_state"].items()} == {
        "m": "float64",
        "v": "float64",
    }


# B24


def test_own_alpha_does_not_follow_a_schedule(library: Any) -> None:
    """Kept: that is what an override is."""
    link = library.link(W=ones(), b=ones())
    opt = library.setup(link)
    link.b.update_rule.hyperparam.alpha = 0.5
    opt.alpha = 0.01
    assert link.W.update_rule.hyperparam.alpha == 0.01
    assert link.b.update_rule.hyperparam.alpha == 0.5


# B25


def test_calls_of_an_update(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each parameter in Chainer, one for all of them here."""
    calls: list[str] = []
    if library.is_ours:
        owner, name = multi_tensor, "step_and_commit"
    else:
        owner, name = library.optimizers.adam.AdamRule, "update_core_cpu"
    whole = getattr(owner, name)

    def counting(*args: Any) -> Any:
        calls.append(name)
        return whole(*args)

    monkeypatch.setattr(owner, name, counting)
    link = library.link(**{f"p{i}": ones() for i in range(50)})
    opt = library.setup(link)
    library.fill_gradients(link)
    opt.update()
    assert len(calls) == library.says(ours=1, theirs=50)


# B26


@pytest.mark.parametrize("t", [10**4, 10**6, 10**9, 10**15])
def test_alpha_t_of_a_long_run(library: Any, t: int) -> None:
    """The powers of the betas become 0, and the correction 1."""
    _, opt = library.trained(alpha=0.25)
    opt.t = t
    expected = 0.25 * math.sqrt(-math.expm1(t * math.log(0.999)))
    assert opt.alpha_t == pytest.approx(expected, rel=1e-12)


# The decay of AdamW, and what is not finite elsewhere


@pytest.mark.parametrize("schedule", [1.0, 0.3], ids=["constant", "eta"])
def test_weight_decay_of_pytorch(library: Any, schedule: float) -> None:
    """wd = lr * PyTorch's, beside its formula in float64; eta scales both parts of the step."""
    lr, decay = 0.02, 0.3
    link = library.link(W=np.array([1.0, -2.0]))
    opt = library.setup(link, "AdamW", alpha=lr, eps=0, weight_decay_rate=lr * decay, eta=schedule)
    p, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    random = np.random.default_rng(0)
    for t in range(1, 50):
        g = random.standard_normal(2)
        link.W.grad = g.copy()
        opt.update()
        rate = lr * schedule
        p = p - rate * decay * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - rate * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
    np.testing.assert_allclose(link.W.array, p, rtol=1e-11)


def test_decay_of_alpha_needs_no_conversion() -> None:
    """The same numbers as above, by the mode that multiplies the decay by alpha."""
    arrays = [np.array([1.0, -2.0]) for _ in range(2)]
    fastadam.AdamW(0.02, weight_decay_rate=0.02 * 0.3).setup(arrays[0]).apply_gradients(np.ones(2))
    other = fastadam.AdamW(0.02, weight_decay_rate=0.3, decay_mode="alpha").setup(arrays[1])
    other.apply_gradients(np.ones(2))
    np.testing.assert_allclose(arrays[0], arrays[1], rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gradient_of_zero_in_float16(library: Any, dtype: str) -> None:
    """eps is added in float32, where it is not 0."""
    link = library.link(W=ones(dtype=dtype))
    opt = library.setup(link)
    library.fill_gradients(link, 0)
    opt.update()
    assert link.W.array.tolist() == [1, 1]
