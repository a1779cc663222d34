"""Loss scaling by its documented rules, beside a model of them in plain Python."""

from __future__ import annotations

import copy
import math
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.serializers import DictionarySerializer, NpzDeserializer

NAN, INF = math.nan, math.inf

HYPER = {
    "alpha": 0.05,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-3,
    "eta": 0.7,
    "weight_decay_rate": 0.01,
}

# Calls 1 to 20 with an interval of 10, where a gradient is NaN in call 18.
TRACE = [2.0**k for k in range(1, 16)]
TRACE += [65504, 65504, 32752, 32752 * 2**0.1, 32752 * 2**0.1 * 2**0.1]


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


class Loss:
    """A loss whose backward pass leaves given true gradients, multiplied by the scale it gets."""

    def __init__(self, link: fastadam.Link, gradients: dict[str, np.ndarray]) -> None:
        self.link, self.gradients = link, gradients
        self.scales: list[float | None] = []

    def backward(self, loss_scale: float | None = None) -> None:
        self.scales.append(loss_scale)
        for name, gradient in self.gradients.items():
            param = getattr(self.link, name)
            assert param.grad is None
            scaled = gradient * (1.0 if loss_scale is None else loss_scale)
            param.grad = scaled.astype(param.dtype)
            param._loss_scale = loss_scale


def link_of(**arrays: Any) -> fastadam.Link:
    """A link with a parameter for each array."""
    link = fastadam.Link()
    with link.init_scope():
        for name, array in arrays.items():
            setattr(link, name, fastadam.Parameter(array))
    return link


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("backward", [False, True])
def test_the_documented_trace(dtype: str, backward: bool) -> None:
    array = np.ones(3, dtype_of(dtype))
    link = link_of(w=array)
    opt = fastadam.Adam().setup(link if backward else {"w": array})
    opt.loss_scaling(interval=10)
    assert opt.loss_scale == 1
    seen, messages, scales = [], [], [1.0]
    for call in range(1, 21):
        gradient = np.array([0.25, NAN if call == 18 else -0.25, 0.5])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if backward:
                loss = opt.update(Loss, link, {"w": gradient})
                assert loss.scales == [scales[-1]]
            else:
                opt.apply_gradients({"w": gradient * opt.loss_scale}, loss_scale=opt.loss_scale)
        messages += [(call, w.category, str(w.message)) for w in caught]
        seen.append(opt.last_update.grad_norm)
        scales.append(opt.loss_scale)
    assert scales[1:] == pytest.approx(TRACE, rel=1e-15)
    assert [round(scale, 2) for scale in scales[-3:]] == [32752, 35102.72, 37622.17]
    assert opt.t == 20
    assert opt.parameters["w"].update_rule.t == 19
    [(call, category, message)] = messages
    assert (call, category) == (18, UserWarning)
    assert "'w'" in message
    assert "t = 17 " in message
    assert "65504" in message
    # unscaled exactly, as powers of 2 and 65504 are; the rest to the gradient's own rounding
    assert seen[:15] == [math.sqrt(0.375)] * 15
    assert math.isnan(seen[17])
    assert seen[18:] == pytest.approx([math.sqrt(0.375)] * 2, rel=2.0**-8)
    assert np.all(np.isfinite(array))


class Model:
    """What updates with loss scaling do, by the documentation, in Python's own floats."""

    def __init__(self, params: dict[str, list[float]]) -> None:
        self.params = {name: list(values) for name, values in params.items()}
        self.moments = {name: [(0.0, 0.0)] * len(values) for name, values in params.items()}
        self.counts = dict.fromkeys(params, 0)
        self.enabled = dict.fromkeys(params, True)
        self.t = 0
        self.scale: float | None = None
        self.dynamic = self.ever = False
        self.multiplier = 1.0
        self.on_nonfinite = "propagate"
        self.hooks = [0, 0]

    def loss_scaling(self, interval: int, scale: float | None) -> None:
        self.scale, self.dynamic = (1.0, True) if scale is None else (scale, False)
        self.multiplier = 2.0 ** (1.0 / interval)
        self.ever = False

    def no_loss_scaling(self) -> None:
        self.scale, self.dynamic, self.ever = None, False, False

    def update(self, scaled: dict[str, list[float] | None]) -> tuple[str, list[str], float]:
        """Make an update; tell how it ended, whose gradients are bad, and the norm."""
        true = {
            name: [0.0] * len(self.params[name])
            if values is None
            else [value / (self.scale or 1.0) for value in values]
            for name, values in scaled.items()
            if self.enabled[name]
        }
        bad = [name for name in true if not all(map(math.isfinite, true[name]))]
        norm = NAN if bad else math.sqrt(math.fsum(g * g for gs in true.values() for g in gs))
        self.hooks[0] += 1
        if bad and self.on_nonfinite == "raise" and not self.dynamic:
            return "raised", bad, norm
        self.t += 1
        skip = bool(bad) and (self.dynamic or self.on_nonfinite == "skip")
        if not skip:
            for name, gradient in true.items():
                self.step(name, gradient)
        self.hooks[1] += 1
        if self.dynamic and self.scale is not None:
            self.ever = self.ever or bool(bad)
            factor = 0.5 if bad else self.multiplier if self.ever else 2.0
            self.scale = max(1.0, min(65504.0, self.scale * factor))
        return ("skipped" if skip else "applied"), bad, norm

    def step(self, name: str, gradient: list[float]) -> None:
        alpha, beta1, beta2, eps, eta, rate = HYPER.values()
        self.counts[name] += 1
        t = self.counts[name]
        alpha_t = alpha * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        for i, g in enumerate(gradient):
            m, v = self.moments[name][i]
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            step = alpha_t / (math.sqrt(v) + eps)
            decayed = (1 - eta * rate) * self.params[name][i]
            self.params[name][i] = decayed - eta * (step * m)
            self.moments[name][i] = m, v


class Counter:
    """A hook that counts its calls."""

    def __init__(self, counts: list[int], timing: str) -> None:
        self.counts, self.timing, self.name = counts, timing, timing

    def __call__(self, opt: Any) -> None:
        self.counts[self.timing == "post"] += 1


@pytest.mark.slow
@pytest.mark.parametrize("dynamic_only", [True, False])
def test_ten_thousand_random_steps(dynamic_only: bool) -> None:
    """With NaN, infinities, disabled rules, missing gradients, and settings that change."""
    dice = random.Random(20 + dynamic_only)
    sizes = {"a": 1, "b": 3, "c": 2}
    arrays = {name: np.linspace(-1, 1, n + 1)[1:] for name, n in sizes.items()}
    model = Model({name: array.tolist() for name, array in arrays.items()})
    opt = fastadam.AdamW(**HYPER).setup(arrays)
    rules = {path: param.update_rule for path, param in opt.parameters.items()}
    hooks = [0, 0]
    for timing in ("pre", "post"):
        opt.add_hook(Counter(hooks, timing))
    settings = {"interval": 50, "scale": None}
    opt.loss_scaling(**settings)
    model.loss_scaling(**settings)
    ends, warned, expected_warnings = {"applied": 0, "skipped": 0, "raised": 0}, 0, 0
    extremes: set[float | None] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(10_000):
            if dice.random() < 0.02:
                name = dice.choice("abc")
                rules[name].enabled = model.enabled[name] = not model.enabled[name]
            if dice.random() < 0.02:
                opt.on_nonfinite = model.on_nonfinite = dice.choice(["propagate", "skip", "raise"])
            if not dynamic_only and dice.random() < 0.01:
                choice = dice.choice([None, 2.0 ** dice.randint(-3, 20), 1000 * dice.random() + 1])
                if dice.random() < 0.3:
                    opt.loss_scale = None
                    model.no_loss_scaling()
                else:
                    settings = {"interval": dice.randint(1, 100), "scale": choice}
                    opt.loss_scaling(**settings)
                    model.loss_scaling(**settings)
            looked = model.dynamic or model.on_nonfinite != "propagate"
            fragile = not model.dynamic and model.on_nonfinite == "propagate"
            # phases with many bad gradients take the scale to its floor, and quiet ones to its top
            odds = 0.0 if fragile else 0.7 if model.t % 1000 > 900 else 0.005
            gradients: dict[str, Any] = {
                name: [dice.gauss(0, 1) * (model.scale or 1.0) for _ in range(n)]
                for name, n in sizes.items()
            }
            for name, values in gradients.items():
                if dice.random() < 0.02:
                    gradients[name] = None
                elif dice.random() < odds:
                    values[dice.randrange(len(values))] = dice.choice([NAN, INF, -INF])
            scale = model.scale
            end, bad, norm = model.update(gradients)
            expected_warnings += len(bad) if model.dynamic else 0
            ends[end] += 1
            extremes.add(model.scale)
            given = {name: None if g is None else np.array(g) for name, g in gradients.items()}
            if end == "raised":
                before = opt.last_update
                with pytest.raises(FloatingPointError) as refusal:
                    opt.apply_gradients(given, loss_scale=opt.loss_scale)
                for name in "abc":
                    assert (repr(name) in str(refusal.value)) == (name in bad)
                assert opt.last_update is before
            else:
                opt.apply_gradients(given, loss_scale=opt.loss_scale)
                report = opt.last_update
                enabled = tuple(name for name in "abc" if model.enabled[name])
                assert report.t == opt.t
                assert report.skipped == (end == "skipped")
                assert report.applied == (() if end == "skipped" else enabled)
                assert report.loss_scale == scale
                assert report.nonfinite == (tuple(bad) if looked else None)
                if not looked:
                    assert report.grad_norm is None
                elif bad:
                    assert not math.isfinite(report.grad_norm)
                else:
                    assert report.grad_norm == pytest.approx(norm, rel=1e-14)
            warned += len(caught)
            caught.clear()
            assert warned == expected_warnings
            assert opt.t == model.t
            assert opt.loss_scale == model.scale
            assert opt._loss_scaling_is_dynamic == model.dynamic
            assert opt._loss_scaling_isnan_ever == model.ever
            assert hooks == model.hooks
            for name, array in arrays.items():
                assert rules[name].t == model.counts[name]
                assert array.tolist() == model.params[name]
    for name, rule in rules.items():
        state = [list(moments) for moments in zip(*model.moments[name], strict=True)]
        assert [rule.state["m"].tolist(), rule.state["v"].tolist()] == state
    # the run has been through everything
    assert ends["applied"] > 5000
    assert ends["skipped"] > 500
    assert dynamic_only or ends["raised"] > 50
    assert {1.0, 65504.0} <= extremes
    assert expected_warnings > 100


@pytest.mark.parametrize("interval", [1, 7, 1000, 2.5])
def test_growth_after_the_first_bad_gradient_doubles_in_an_interval(interval: float) -> None:
    w = np.zeros(1)
    opt = fastadam.Adam().setup(w)
    opt.loss_scaling(interval=interval)
    with pytest.warns(UserWarning, match="not finite"):
        opt.apply_gradients(np.array([INF]))
    assert opt.loss_scale == 1  # not below
    opt.apply_gradients(np.ones(1))
    assert opt.loss_scale == 2 ** (1 / interval)


def test_a_new_dynamic_scale_forgets_what_was() -> None:
    w = np.zeros(1)
    opt = fastadam.Adam().setup(w)
    opt.loss_scaling(interval=10)
    with pytest.warns(UserWarning, match="not finite"):
        opt.apply_gradients(np.array([NAN]))
    opt.loss_scaling(interval=10)
    assert (opt.loss_scale, opt.is_safe_to_update()) == (1, True)
    opt.apply_gradients(np.ones(1), loss_scale=1)
    assert opt.loss_scale == 2


@pytest.mark.parametrize("scale", [1024, 1024.0, np.float32(1024), 0.125, 3e38])
def test_a_static_scale_stays(scale: float) -> None:
    w = np.array([1.0, 1.0])
    plain = w.copy()
    opt, other = fastadam.Adam(eps=0.1).setup(w), fastadam.Adam(eps=0.1).setup(plain)
    opt.set_loss_scale(scale)
    for _ in range(3):
        gradient = np.array([0.5, -2.0])
        opt.apply_gradients(gradient * float(scale), loss_scale=opt.loss_scale)
        other.apply_gradients(gradient)
        assert opt.loss_scale == scale
    np.testing.assert_array_equal(w, plain)
    # a static scale lets NaN through, unless on_nonfinite says otherwise; no warning either
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.apply_gradients(np.array([NAN, 1]), loss_scale=opt.loss_scale)
    assert opt.loss_scale == scale
    assert np.isnan(w).tolist() == [True, False]
    # nobody has asked
    assert opt.last_update.nonfinite is None


def test_gradients_without_a_scale_are_not_divided() -> None:
    """The optimizer's scale is for its own backward pass; a caller says what he has scaled."""
    w, plain = np.ones(2), np.ones(2)
    opt, other = fastadam.Adam(eps=0.1).setup(w), fastadam.Adam(eps=0.1).setup(plain)
    opt.set_loss_scale(64)
    opt.apply_gradients(np.array([1.0, 2.0]))
    other.apply_gradients(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(w, plain)


def test_a_static_scale_ends_a_dynamic_one() -> None:
    w = np.zeros(2)
    opt = fastadam.Adam().setup(w)
    opt.loss_scaling()
    opt.set_loss_scale(128)
    assert opt._loss_scaling_is_dynamic is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for gradient in (1.0, 2.0):
            opt.apply_gradients(np.full(2, gradient), loss_scale=128)
            assert opt.loss_scale == 128
        opt.apply_gradients(np.full(2, NAN), loss_scale=128)
    assert opt.loss_scale == 128
    assert np.all(np.isnan(w))
    assert opt.last_update.skipped is False


def test_the_property_and_its_three_kinds() -> None:
    opt = fastadam.Adam()
    assert opt.loss_scale is None
    opt.loss_scale = 8
    assert (opt.loss_scale, opt._loss_scaling_is_dynamic) == (8, False)
    opt.loss_scaling(interval=3)
    assert (opt.loss_scale, opt._loss_scaling_is_dynamic) == (1, True)
    opt.loss_scale = 16
    assert (opt.loss_scale, opt._loss_scaling_is_dynamic) == (16, False)
    opt.loss_scaling()
    opt.loss_scale = None
    assert (opt.loss_scale, opt._loss_scaling_is_dynamic) == (None, False)
    opt.setup(np.zeros(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.apply_gradients(np.array([NAN]))
    assert opt.loss_scale is None
    assert opt.last_update.skipped is False


def refused(call: Callable[[fastadam.Adam], Any], word: str) -> None:
    """Check that a call raises ValueError with a word, and leaves dynamic scaling as it was."""
    opt = fastadam.Adam().setup(np.zeros(1))
    opt.loss_scaling(interval=10)
    opt.apply_gradients(np.ones(1))
    with pytest.warns(UserWarning, match="not finite"):
        opt.apply_gradients(np.array([INF]))
    before = {key: value for key, value in vars(opt).items() if key.startswith("_loss_scal")}
    with pytest.raises(ValueError, match=word):
        call(opt)
    assert {key: vars(opt)[key] for key in before} == before
    assert opt.t == 2
    assert opt.parameters["param"].grad is None
    assert opt.parameters["param"]._loss_scale is None


@pytest.mark.parametrize("interval", [0, -1, 0.99, NAN, -INF])
def test_intervals_below_one_are_refused(interval: float) -> None:
    refused(lambda opt: opt.loss_scaling(interval=interval), "interval")


@pytest.mark.parametrize("scale", [0, 0.0, -1, NAN, INF, -INF])
def test_scales_that_are_not_above_zero_are_refused(scale: float) -> None:
    refused(lambda opt: opt.loss_scaling(scale=scale), "loss scale")
    refused(lambda opt: opt.set_loss_scale(scale), "loss scale")
    refused(lambda opt: setattr(opt, "loss_scale", scale), "loss scale")
    refused(lambda opt: opt.apply_gradients(np.ones(1), loss_scale=scale), "loss scale")


def test_it_is_safe_to_update_before_the_first_update() -> None:
    for opt in (fastadam.Adam(), fastadam.Adam().setup(np.zeros(1))):
        assert opt.is_safe_to_update() is True
        opt.loss_scaling()
        assert opt.is_safe_to_update() is True
        opt.update_loss_scale()
        assert opt.loss_scale == 2


def test_the_steps_of_a_loop_of_ones_own() -> None:
    """The methods may be called by hand; looking leaves scaled gradients scaled."""
    link = link_of(a=np.zeros(2, np.float32), b=np.zeros(1, np.float32))
    opt = fastadam.Adam().setup(link)
    link.a.grad, link.b.grad = np.array([8, INF], np.float32), np.array([NAN], np.float32)
    link.a._loss_scale = link.b._loss_scale = 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (None, 8.0):
            # nobody has asked for a dynamic scale
            opt.loss_scale = scale
            opt.check_nan_in_grads()
            assert opt.is_safe_to_update() is True
    opt.loss_scaling(interval=2)
    opt._loss_scale = 64.0
    with pytest.warns(UserWarning, match="not finite") as caught:
        opt.check_nan_in_grads()
    assert [("'a'" in str(w.message), "'b'" in str(w.message)) for w in caught] == [
        (True, False),
        (False, True),
    ]
    assert link.a.grad.tolist() == [8, INF]
    assert link.a._loss_scale == 8
    assert opt.is_safe_to_update() is False
    opt.update_loss_scale()
    assert opt.loss_scale == 32
    link.a.grad[1], link.b.grad[0] = 1, 1
    opt.check_nan_in_grads()
    assert opt.is_safe_to_update() is True
    opt.update_loss_scale()
    assert opt.loss_scale == 32 * 2**0.5
    assert opt.t == 0
    np.testing.assert_array_equal(link.a.array, 0)


def test_dynamic_scaling_passes_over_what_is_not_updated() -> None:
    """Uninitialised, cleared, disabled and rule-less parameters are no reason to skip."""
    link = link_of(w=np.zeros(2), off=np.zeros(2), none=np.zeros(2))
    with link.init_scope():
        link.lazy = fastadam.Parameter()
        link.cleared = fastadam.Parameter()
    opt = fastadam.Adam().setup(link)
    opt.loss_scaling()
    link.cleared.cleargrad()
    link.off.update_rule.enabled = False
    link.none.update_rule = None
    for param in (link.off, link.none):
        param.grad = np.array([NAN, INF])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.update()
    assert opt.loss_scale == 2
    assert opt.last_update.applied == ("w",)
    assert opt.last_update.nonfinite == ()
    assert link.w.update_rule.t == 1
    link.off.update_rule.enabled = True
    with pytest.warns(UserWarning, match="'off'"):
        opt.update()
    assert opt.loss_scale == 1
    assert opt.last_update.nonfinite == ("off",)


def test_every_bad_gradient_is_warned_of() -> None:
    arrays = {name: np.zeros(2) for name in "abc"}
    opt = fastadam.Adam().setup(arrays)
    opt.loss_scaling()
    with pytest.warns(UserWarning, match="not finite") as caught:
        opt.apply_gradients({"a": [NAN, 0.0], "b": [1.0, 1.0], "c": [-INF, INF]})
    assert len(caught) == 2
    assert opt.last_update.nonfinite == ("a", "c")


def test_setup_keeps_the_loss_scale_and_drops_the_report() -> None:
    opt = fastadam.Adam().setup(np.zeros(1))
    opt.loss_scaling(interval=10)
    opt.on_nonfinite, opt.monitor = "skip", True
    with pytest.warns(UserWarning, match="not finite"):
        opt.apply_gradients(np.array([NAN]))
    opt.setup(np.zeros(2))
    assert opt.last_update is None
    assert opt._loss_scaling_is_dynamic
    assert opt._loss_scaling_isnan_ever
    assert (opt.on_nonfinite, opt.monitor, opt.loss_scale) == ("skip", True, 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_as_the_original(copied: Callable[[Any], Any]) -> None:
    w = np.ones(3, np.float32)
    opt = fastadam.Adam(**HYPER).setup({"w": w})
    opt.loss_scaling(interval=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for gradient in (1.0, 2.0, NAN, 3.0):
            opt.apply_gradients({"w": np.full(3, gradient)}, loss_scale=opt.loss_scale)
    again = copied(opt)
    for one in (opt, again):
        one.apply_gradients({"w": np.full(3, 0.3)}, loss_scale=one.loss_scale)
    assert again.loss_scale == opt.loss_scale
    assert again.last_update == opt.last_update
    assert again.loss_scale == pytest.approx(2.0 * 2**0.2)
    np.testing.assert_array_equal(again.target["w"], w)


def saved(opt: Any) -> dict[str, Any]:
    """What an optimizer writes to a file."""
    target = DictionarySerializer()
    target.save(opt)
    return dict(target.target)


@pytest.mark.parametrize("kind", ["none", "static", "dynamic"])
@pytest.mark.parametrize("format_", ["npz", "hdf5"])
def test_resumed_equals_uninterrupted(format_: str, kind: str, tmp_path: Path) -> None:
    if format_ == "hdf5":
        pytest.importorskip("h5py", reason="needs h5py")

    def train(opt: Any, calls: range) -> None:
        for call in calls:
            gradient = np.full(3, NAN if call == 4 and kind == "dynamic" else 0.25 * call)
            opt.apply_gradients({"w": gradient * (opt.loss_scale or 1)}, loss_scale=opt.loss_scale)

    w = np.ones(3, np.float32)
    opt = fastadam.AdamW(**HYPER).setup({"w": w})
    if kind != "none":
        opt.loss_scaling(interval=10, scale=24.0 if kind == "static" else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(opt, range(8))
    getattr(fastadam.serializers, f"save_{format_}")(tmp_path / "opt", opt)
    again = fastadam.AdamW(**HYPER).setup({"w": w.copy()})
    getattr(fastadam.serializers, f"load_{format_}")(tmp_path / "opt", again)
    for one in (opt, again):
        train(one, range(8, 12))
    assert again.target["w"].tolist() == w.tolist()
    assert again.loss_scale == opt.loss_scale
    assert again == opt
    for name in ("_loss_scaling_is_dynamic", "_loss_scaling_isnan_ever"):
        assert getattr(again, name) is (kind == "dynamic")
        assert getattr(opt, name) is (kind == "dynamic")


def test_only_what_is_set_is_saved() -> None:
    opt = fastadam.Adam().setup(np.ones(2))
    assert set(saved(opt)) == {"t", "epoch", "param/t"}
    opt.loss_scaling()
    assert {key for key in saved(opt) if key.startswith("fastadam/loss_scale")} == {
        "fastadam/loss_scale",
        "fastadam/loss_scale_dynamic",
        "fastadam/loss_scale_multiplier",
        "fastadam/loss_scale_nonfinite_ever",
    }


@pytest.mark.parametrize("scale", [0.0, -1.0, NAN, INF, [1.0, 2.0]])
def test_a_bad_scale_in_a_file_changes_nothing(scale: Any) -> None:
    opt = fastadam.Adam().setup(np.ones(2))
    opt.set_loss_scale(8.0)
    opt.apply_gradients(np.ones(2))
    stored = saved(opt)
    stored["fastadam/loss_scale"] = np.array(scale)
    other = fastadam.Adam().setup(np.ones(2))
    other.loss_scaling(interval=3)
    before = dict(vars(other))
    with pytest.raises(ValueError, match=r"loss.scale"):
        NpzDeserializer(stored).load(other)
    assert dict(vars(other)) == before
    assert (other.t, other.loss_scale) == (0, 1)
    assert other.parameters["param"].update_rule.state is None


@pytest.mark.parametrize("format_", ["npz", "hdf5"])
def test_a_file_that_lacks_a_part_of_the_loss_scale(tmp_path: Path, format_: str) -> None:
    """It has all of it or none; a fixed scale is none that grows."""
    if format_ == "hdf5":
        pytest.importorskip("h5py")
    opt = fastadam.Adam().setup(np.ones(2))
    opt.loss_scaling(interval=3)
    opt.apply_gradients(np.ones(2))
    load = getattr(fastadam.serializers, f"load_{format_}")
    for end in ("", "_dynamic", "_multiplier", "_nonfinite_ever"):
        stored = saved(opt)
        del stored[f"fastadam/loss_scale{end}"]
        getattr(fastadam.serializers, f"save_{format_}")(tmp_path / "opt", stored)
        other = fastadam.Adam().setup(np.ones(2))
        other.set_loss_scale(16.0)
        before = dict(vars(other))
        with pytest.raises(KeyError, match=f"fastadam/loss_scale{end}'"):
            load(tmp_path / "opt", other)
        assert dict(vars(other)) == before
        load(tmp_path / "opt", other, strict=False)
        assert other.t == 1
        assert other.loss_scale == (opt.loss_scale if end else 16.0)


def test_a_load_ends_what_the_last_update_had_found() -> None:
    opt = fastadam.Adam().setup(np.ones(1))
    opt.loss_scaling()
    stored = saved(opt)
    with pytest.warns(UserWarning, match="not finite"):
        opt.apply_gradients(np.array([NAN]))
    assert not opt.is_safe_to_update()
    NpzDeserializer(stored).load(opt)
    assert opt.is_safe_to_update()
    opt.update_loss_scale()
    assert opt.loss_scale == 2


def test_a_subclass_may_look_for_itself() -> None:
    class Careful(fastadam.Adam):
        def is_safe_to_update(self) -> bool:
            return False

    w = np.ones(1)
    opt = Careful().setup(w)
    opt.apply_gradients(np.ones(1))
    assert (opt.t, opt.parameters["param"].update_rule.t, w[0]) == (1, 0, 1)
    assert opt.last_update.skipped is True
    assert opt.last_update.applied == ()
