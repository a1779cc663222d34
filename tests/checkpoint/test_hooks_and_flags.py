"""Hooks by name, flags that were switched, and numbers of all kinds: nothing is lost in silence."""

from __future__ import annotations

import sys
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import CheckpointError
from fastadam.optimizer_hooks import GradientClipping, GradientNoise, WeightDecay

sys.path.insert(0, str(Path(__file__).parent))
from sealing import sealed


def made(*hooks: Any, kind: Any = fastadam.Adam, of_rule: Any = None, **arguments: Any) -> Any:
    opt = kind(**arguments).setup({"a": np.ones(3), "l": {"b": np.ones(2)}})
    for hook in hooks:
        opt.add_hook(hook)
    if of_rule is not None:
        opt.parameters["l/b"].update_rule.add_hook(of_rule)
    return opt


def step(opt: Any, n: int = 1) -> Any:
    for _ in range(n):
        opt.apply_gradients({"a": np.arange(3.0), "l": {"b": np.ones(2)}})
    return opt


def test_hooks_that_are_missing_or_new(path: Path) -> None:
    opt = step(made(GradientClipping(0.1), WeightDecay(0.1), of_rule=WeightDecay(0.2)))
    fastadam.save(path, opt)
    other = made(GradientClipping(0.5), WeightDecay(0.1), of_rule=WeightDecay(0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = fastadam.load(path, other)
    assert (report.hooks_missing, report.hooks_added) == ((), ())
    other = made(GradientNoise(0.1), GradientClipping(0.1))
    with pytest.warns(UserWarning, match="not here: WeightDecay, l/b: WeightDecay") as caught:
        report = fastadam.load(path, other)
    assert report.hooks_missing == ("WeightDecay", "l/b: WeightDecay")
    assert report.hooks_added == ("GradientNoise",)
    assert "hooks missing: WeightDecay, l/b: WeightDecay" in str(report)
    assert "hooks added: GradientNoise" in str(report)
    (warning,) = caught
    assert warning.filename == __file__
    assert "are here: GradientNoise" in str(warning.message)
    assert other.t == 1
    # who turns warnings into errors has nothing loaded
    other = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="not here"):
            fastadam.load(path, other)
    assert (other.t, other.parameters["a"].update_rule.state) == (0, None)
    report = fastadam.load(path, other, ignore_names="fastadam/hooks")
    assert (report.hooks_missing, other.t) == ((), 1)


def test_hooks_of_renamed_parameters(path: Path) -> None:
    fastadam.save(path, step(made(of_rule=WeightDecay(0.1))))
    other = fastadam.Adam().setup({"a": np.ones(3), "m": {"b": np.ones(2)}})
    other.parameters["m/b"].update_rule.add_hook(WeightDecay(0.1))
    report = fastadam.load(path, other, rename={"l": "m"})
    assert (report.hooks_missing, report.hooks_added) == ((), ())


def test_files_without_names_of_hooks(path: Path) -> None:
    fastadam.save(path, step(made(WeightDecay(0.1))))
    sealed(path, dict.fromkeys(["fastadam/hooks", "fastadam/settings/missing_gradients"], ...))
    other = made()
    report = fastadam.load(path, other)
    assert (report.hooks_missing, report.hooks_added, other.t) == ((), (), 1)


def test_adabound_switched_on_has_the_alpha_of_then(path: Path) -> None:
    for switched in (True, False):
        opt = step(made(alpha=0.1, kind=fastadam.Adam), 2)
        opt.adabound = True
        if switched:
            step(opt)
            opt.alpha = 0.05
        fastadam.save(path, opt)
        for other in (
            made(alpha=0.5, kind=fastadam.AdaBound),
            made(alpha=0.7, adabound=True),
            step(made(alpha=0.3, kind=fastadam.AdaBound)),
            opt,
        ):
            fastadam.load(path, other)
            first = vars(other.parameters["a"].update_rule).get("initial_alpha")
            assert first == (0.1 if switched else None)
            if type(other) is type(opt):
                assert other == opt
        resumed = made(alpha=0.9, adabound=True)
        fastadam.load(path, resumed)
        assert step(resumed, 3) == step(opt, 3)


def test_amsgrad_switched_off_loads_everywhere(path: Path) -> None:
    opt = step(made(alpha=0.1, kind=fastadam.AMSGrad), 2)
    opt.amsgrad = False
    step(opt)
    fastadam.save(path, opt)
    switched_off = step(made(alpha=0.3, kind=fastadam.AMSGrad))
    switched_off.amsgrad = False
    for other in (
        made(),
        made(kind=fastadam.AMSGrad),
        step(made(kind=fastadam.AMSGrad), 3),
        switched_off,
        opt,
    ):
        report = fastadam.load(path, other)
        assert (report.left, report.missing, report.converted) == ((), (), ())
        for name, param in other.parameters.items():
            mine, theirs = param.update_rule.state, opt.parameters[name].update_rule.state
            assert sorted(mine) == ["m", "v", "vhat"]
            assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
        assert other.amsgrad is False
    # a file of Adam's has none to give
    fastadam.save(path, step(made()))
    for other in (made(kind=fastadam.AMSGrad), made(amsgrad=True)):
        with pytest.raises(CheckpointError, match="convert_amsgrad=True"):
            fastadam.load(path, other)
    # and what was saved with AMSGrad loads into what it was saved from, switched off since
    on = step(made(kind=fastadam.AMSGrad))
    fastadam.save(path, on)
    on.amsgrad = False
    step(on)
    fastadam.load(path, on)
    assert (on.amsgrad, on.t) == (True, 1)


def test_amsgrad_switched_on_and_saved_at_once(path: Path) -> None:
    opt = step(made(alpha=0.1), 2)
    opt.amsgrad = True
    fastadam.save(path, opt)
    other = made(alpha=0.1, kind=fastadam.AMSGrad)
    fastadam.load(path, other)
    later = made(alpha=0.1, amsgrad=True)
    step(later, 5)
    fastadam.load(path, later)
    assert later == opt
    for one in (opt, other, later):
        assert "vhat" not in one.parameters["a"].update_rule.state
        step(one, 2)
    assert opt == later
    assert np.array_equal(other.target["a"], opt.target["a"])


def test_modes_of_an_optimizer_that_has_others(path: Path) -> None:
    for saved, into in (("hat", "paper"), ("paper", "hat")):
        opt = step(made(eps_mode=saved))
        fastadam.save(path, opt)
        other = made(eps_mode=into, decay_mode="alpha")
        fastadam.load(path, other)
        assert other == opt
        assert (other.eps_mode, other.decay_mode) == (saved, "eta")


NUMBERS = [Decimal("0.1"), Fraction(1, 8), np.float64(0.01), np.float32(0.25), np.array(0.5), 1]


def test_numbers_of_all_kinds(path: Path) -> None:
    for number in [*NUMBERS, np.int64(1), np.array([0.5])[0], np.array(0.5, ">f4")]:
        opt = step(made(alpha=number))
        opt.set_hyperparam("a", beta1=Fraction(1, 2), eps=np.float32(1e-6))
        step(opt)
        fastadam.save(path, opt)
        other = made()
        fastadam.load(path, other)
        assert other == opt, number
        assert type(other.alpha) in (float, int)
        assert float(other.alpha) == float(number)
        assert f"alpha={float(number)!r}" in repr(opt) or f"alpha={int(number)!r}" in repr(opt)
        for shown in (repr(opt), repr(opt.hyperparam)):
            assert "np." not in shown
            assert "Decimal" not in shown
            assert "array" not in shown
            assert "Fraction" not in shown
        assert step(other) == step(opt)


def test_other_values_of_a_classs_own_hyperparameters(path: Path) -> None:
    class Mine(fastadam.GradientMethod):
        def __init__(self) -> None:
            super().__init__()
            self.hyperparam.numbers = np.zeros(3)
            self.hyperparam.word = "a"
            self.hyperparam.flag = False
            self.hyperparam.nothing = None

        def create_update_rule(self) -> Any:
            return fastadam.AdamRule()

    opt = Mine().setup({"w": np.ones(2)})
    opt.hyperparam.numbers, opt.hyperparam.word = np.arange(3.0), "b\n'"
    opt.hyperparam.flag = np.bool_(True)
    fastadam.save(path, opt)
    other = Mine().setup({"w": np.ones(2)})
    fastadam.load(path, other)
    hp = other.hyperparam
    assert (hp.numbers.tolist(), hp.word, hp.flag, hp.nothing) == ([0, 1, 2], "b\n'", True, None)
    assert other.hyperparam == opt.hyperparam


def test_torch_parameters() -> None:
    torch = pytest.importorskip("torch")
    opt = made(alpha=torch.nn.Parameter(torch.tensor(0.25)))
    step(opt)
    assert "alpha=0.25" in repr(opt)
