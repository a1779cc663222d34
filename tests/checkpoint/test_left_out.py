"""Files whose digests are right and that lack what every save writes: refused, and named."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import CheckpointError

sys.path.insert(0, str(Path(__file__).parent))
from full_optimizer import everything, make
from sealing import keys_of, sealed

# What is in a file only where there is any: without it, it is the file of another optimizer.
NOT_ALWAYS: dict[str, Callable[[str], bool]] = {
    "a rule's own hyperparameters": lambda key: (
        key.startswith("fastadam/rule/") and "/hyperparam/" in key
    ),
    "modes that are not the usual ones": lambda key: key.endswith(("/eps_mode", "/decay_mode")),
    "AMSGrad, switched on since the last step": lambda key: key.endswith("/vhat"),
    "masters, switched on since the last step": lambda key: key.endswith("/fp32_param"),
}

# What is there a second time, for Chainer.
CHAINERS = [f"optimizer/{path}/initial_alpha" for path in ("a/w", "a/lazy", "b/W")]


def full(seed: int) -> Any:
    opt = make(seed)
    opt.eps_mode, opt.decay_mode = "paper", "alpha"
    # the first alpha is another than today's
    opt.alpha *= 0.5
    return opt


def refused(path: Path, left_out: list[str], **how: Any) -> str:
    """Leave entries out, load into what has other values, and return the error."""
    fastadam.save(path, full(3))
    sealed(path, dict.fromkeys(left_out, ...))
    other = full(6)
    before = everything(other)
    with pytest.raises(CheckpointError) as raised:
        fastadam.load(path, other, **how)
    assert everything(other) == before, left_out
    return str(raised.value)


def saved_keys(path: Path) -> list[str]:
    fastadam.save(path, full(3))
    return keys_of(path)


def test_each_entry(path: Path) -> None:
    keys = saved_keys(path)
    assert len(keys) > 50
    for key in keys:
        if any(belongs(key) for belongs in NOT_ALWAYS.values()) or key in CHAINERS:
            continue
        words = refused(path, [key])
        if key.startswith("target/") and "parameters=False" in words:
            continue
        assert repr(key) in words, words


def test_what_is_not_always_there(path: Path) -> None:
    keys = saved_keys(path)
    for name, belongs in NOT_ALWAYS.items():
        left_out = [key for key in keys if belongs(key)]
        assert left_out, name
        for key in left_out:
            fastadam.save(path, full(3))
            sealed(path, {key: ...})
            other = full(6)
            report = fastadam.load(path, other)
            assert (report.missing, report.verified) == ((), True), key
            assert other.t == full(3).t


def test_the_first_alpha(path: Path) -> None:
    """It is there twice, in Chainer's way and in ours; a rule may have none yet."""
    ends = "optimizer/a/w/initial_alpha", "fastadam/rule/a/w/initial_alpha"
    assert set(ends) < set(saved_keys(path))
    assert repr(ends[1]) in refused(path, [ends[1]])
    for left_out, first in ((ends[:1], 0.4), (ends, None)):
        fastadam.save(path, full(3))
        sealed(path, dict.fromkeys(left_out, ...))
        other = full(6)
        fastadam.load(path, other)
        assert vars(other.parameters["a/w"].update_rule).get("initial_alpha") == first


def test_whole_sections(path: Path) -> None:
    keys = saved_keys(path)
    sections = ["fastadam/", "fastadam/hyperparam/", "fastadam/settings/", "fastadam/rule/"]
    sections += ["fastadam/rule/a/w/", "fastadam/rule/a/w/hook", "fastadam/hook/"]
    sections += ["fastadam/hook/Counting/", "fastadam/rule/b/W/hook/"]
    sections += ["optimizer/", "optimizer/a/w/", "optimizer/b/W/", "target/a/"]
    for section in sections:
        left_out = [key for key in keys if key.startswith(section)]
        if not left_out:
            assert section == "fastadam/rule/a/w/hook"
            continue
        words = refused(path, left_out)
        assert any(repr(key) in words for key in left_out), words


@pytest.mark.parametrize("how", [{}, {"hyperparam": False}, {"convert_amsgrad": True}])
def test_a_whole_state(path: Path, how: dict[str, Any]) -> None:
    """A rule that has been counted has a state, enabled or not."""
    keys = saved_keys(path)
    for param in ("a/w", "b/W"):
        names = [f"optimizer/{param}/{name}" for name in ("m", "v", "vhat", "fp32_param")]
        left_out = [name for name in names if name in keys]
        assert f"optimizer/{param}/m" in left_out
        assert f"'optimizer/{param}/m'" in refused(path, left_out, **how)


def test_what_says_how_the_loss_scale_grows(path: Path) -> None:
    for name in ("", "_dynamic", "_multiplier", "_nonfinite_ever"):
        key = f"optimizer/fastadam/loss_scale{name}"
        assert repr(key) in refused(path, [key])
        sealed(path, {key: ...})
        assert fastadam.load(path, full(6), strict=False).missing == (key,)
    # without all of them it is the file of an optimizer without one
    fastadam.save(path, full(3))
    keys = [key for key in keys_of(path) if "/loss_scale" in key]
    assert len(keys) == 4
    sealed(path, dict.fromkeys(keys, ...))
    other = full(6)
    fastadam.load(path, other)
    assert other.loss_scale is None


def test_what_is_missing_is_left_and_told(path: Path) -> None:
    left_out = ["fastadam/hyperparam/beta2", "fastadam/settings/monitor"]
    left_out += ["fastadam/rule/b/W/enabled", "optimizer/epoch", "optimizer/a/w/m"]
    for how in ({"strict": False}, {"ignore_names": left_out}):
        fastadam.save(path, full(3))
        sealed(path, dict.fromkeys(left_out, ...))
        other = full(6)
        other.beta2, other.monitor, other.epoch = 0.75, True, 9
        rule, single = (other.parameters[name].update_rule for name in ("a/w", "b/W"))
        enabled, m = single.enabled, rule.state["m"].copy()
        report = fastadam.load(path, other, **how)
        told = report.missing if "strict" in how else report.ignored
        assert sorted(told) == sorted(left_out)
        assert (other.beta2, other.monitor, other.epoch) == (0.75, True, 9)
        assert single.enabled == enabled
        assert np.array_equal(rule.state["m"], m)
        saved = full(3)
        assert (other.t, other.alpha, other.beta1) == (saved.t, saved.alpha, saved.beta1)
        assert np.array_equal(rule.state["v"], saved.parameters["a/w"].update_rule.state["v"])
        assert vars(single.hyperparam) == vars(saved.parameters["b/W"].update_rule.hyperparam)


def test_advice(path: Path) -> None:
    words = refused(path, ["fastadam/hyperparam/beta2"])
    assert "has no 'fastadam/hyperparam/beta2'" in words
    assert "strict=False leaves" in words
    # nobody has called beta2 by the name of beta1
    assert "beta1" not in words


def test_a_classs_own_hyperparameter(path: Path) -> None:
    class Mine(fastadam.Adam):
        def __init__(self) -> None:
            super().__init__()
            self.hyperparam.warmup = 7

    opt = fastadam.Adam().setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    fastadam.save(path, opt)
    opt = Mine().setup({"w": np.ones(3)})
    with pytest.raises(CheckpointError, match="'fastadam/hyperparam/warmup'"):
        fastadam.load(path, opt)
    report = fastadam.load(path, opt, strict=False)
    assert (report.missing, opt.hyperparam.warmup) == (("fastadam/hyperparam/warmup",), 7)


def test_a_rule_that_is_counted_and_has_no_state_says_so(path: Path) -> None:
    def counted() -> Any:
        opt = fastadam.AMSGrad(alpha=0.1).setup({"w": np.ones(3), "b": np.ones(2)})
        opt.apply_gradients({"w": np.ones(3), "b": np.ones(2)})
        opt.parameters["b"].update_rule._state = None
        return opt

    fastadam.save(path, counted())
    assert "fastadam/rule/b/stateless" in keys_of(path)
    assert "fastadam/rule/w/stateless" not in keys_of(path)
    for opt in (counted(), fastadam.AMSGrad().setup({"w": np.zeros(3), "b": np.zeros(2)})):
        for _ in range(2):
            report = fastadam.load(path, opt)
            assert (report.left, report.missing) == ((), ())
            assert opt == counted()
            assert opt.parameters["b"].update_rule.state is None
            opt.apply_gradients({"w": np.ones(3), "b": np.ones(2)})
    for how in ({"hyperparam": False}, {"convert_amsgrad": True}):
        fastadam.load(path, opt, **how)
        assert opt.parameters["b"].update_rule.state is None
    # under another name
    renamed = fastadam.AMSGrad().setup({"w": np.zeros(3), "c": np.zeros(2)})
    fastadam.load(path, renamed, rename={"b": "c"})
    assert renamed.parameters["c"].update_rule.state is None
    # said of a rule whose state is there, it means nothing
    fastadam.save(path, opt)
    for value in (True, False):
        sealed(path, {"fastadam/rule/w/stateless": value})
        fastadam.load(path, opt)
        assert opt.parameters["w"].update_rule.state is not None
    for value in (2, "no", [True, True]):
        sealed(path, {"fastadam/rule/w/stateless": value})
        with pytest.raises(CheckpointError, match="'fastadam/rule/w/stateless'"):
            fastadam.load(path, opt)


def test_files_of_before_there_were_names_of_hooks(path: Path) -> None:
    """They have neither these nor `missing_gradients`, and no others lack one of the two."""
    later = ["fastadam/hooks", "fastadam/settings/missing_gradients"]
    for key in later:
        assert repr(key) in refused(path, [key])
    fastadam.save(path, full(3))
    left_out = [key for key in keys_of(path) if key.startswith("fastadam/hook")]
    sealed(path, dict.fromkeys([*left_out, *later], ...))
    other = full(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = fastadam.load(path, other)
    assert (report.missing, report.hooks_missing, other.t) == ((), (), full(3).t)
    assert other.missing_gradients == full(6).missing_gradients
