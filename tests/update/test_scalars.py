"""The scalars that rules share: which numbers they are made of, whatever has happened before."""

from __future__ import annotations

from collections import ChainMap, OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, AdamRule, Hyperparameter, UpdateRule


def arrays(n: int = 1) -> dict[str, Any]:
    return {f"p{i}": np.zeros(2) for i in range(n)}


def step(opt: Any) -> None:
    opt.apply_gradients({path: np.array([1.0, 2.0]) for path in opt.target})


def twin(*steps: Any, **numbers: Any) -> np.ndarray:
    """The first parameter after steps that begin with these changes, all described anew."""
    opt = Adam(**numbers).setup(arrays())
    for change in steps:
        change(opt)
        opt._plan = None
        step(opt)
    return opt.target["p0"]


def test_a_first_alpha_that_is_removed_is_set_anew() -> None:
    def bounded(opt: Any) -> None:
        opt.adabound = True

    def removed(opt: Any) -> None:
        del opt.parameters["p0"].update_rule.initial_alpha
        opt.alpha = 0.1

    opt = Adam(gamma=1.0).setup(arrays())
    for change in (bounded, removed, lambda opt: None):
        change(opt)
        step(opt)
    assert opt.parameters["p0"].update_rule.initial_alpha == 0.1
    np.testing.assert_array_equal(
        opt.target["p0"], twin(bounded, removed, lambda opt: None, gamma=1.0)
    )


def test_a_first_alpha_that_a_load_has_removed(tmp_path: Path) -> None:
    source = Adam(gamma=1.0).setup(arrays())
    step(source)
    fastadam.save(tmp_path / "x.npz", source)
    opt = Adam(gamma=1.0).setup(arrays())
    opt.adabound = True
    step(opt)
    opt.adabound = False
    fastadam.load(tmp_path / "x.npz", opt)
    opt.adabound = True
    opt.alpha = 0.1
    for _ in range(2):
        step(opt)
    assert opt.parameters["p0"].update_rule.initial_alpha == 0.1


def test_a_warm_up_from_0_within_an_update() -> None:
    class Mine(UpdateRule):
        def batch_key(self) -> str:
            return "mine"

        def update_core(self, param: Any) -> None:
            opt.alpha = 0.1

    opt = Adam(alpha=0.0, adabound=True).setup(arrays(2))
    opt.parameters["p0"].update_rule = Mine(opt.hyperparam)
    step(opt)
    np.testing.assert_array_equal(
        opt.target["p1"], twin(lambda opt: None, alpha=0.1, adabound=True)
    )


def test_bounds_that_were_off_for_a_while() -> None:
    opt = Adam(adabound=True).setup(arrays())
    step(opt)
    opt.adabound, opt.alpha = False, 1e-300
    for _ in range(2):
        step(opt)
    # 1e10 * 1.0 / 1e-300 would be infinite; the first alpha is 0.001
    opt.adabound, opt.alpha, opt.final_lr = True, 1.0, 1e10
    step(opt)
    assert opt.t == 4


def test_a_first_alpha_of_a_class_with_ways_of_its_own() -> None:
    factor = [1.0]

    class Rule(AdamRule):
        @property
        def initial_alpha(self) -> float:
            return float(self.__dict__["initial_alpha"] * factor[0])

        @initial_alpha.setter
        def initial_alpha(self, value: float) -> None:
            self.__dict__["initial_alpha"] = value

    class Mine(Adam):
        def create_update_rule(self) -> Rule:
            return Rule(self.hyperparam)

    opts = [Mine(alpha=0.01, adabound=True, gamma=1.0).setup(arrays()) for _ in range(2)]
    for factor[0] in (1.0, 1.0, 10.0):
        opts[1]._plan = None
        for opt in opts:
            step(opt)
        np.testing.assert_array_equal(opts[0].target["p0"], opts[1].target["p0"])


@pytest.mark.parametrize("kind", [OrderedDict, ChainMap, MappingProxyType])
def test_hyperparameters_in_another_kind_of_mapping(kind: Any) -> None:
    class Bag(Hyperparameter):
        def get_dict(self) -> Any:
            return kind(super().get_dict())

    opt = Adam(alpha=0.01).setup(arrays())
    opt.parameters["p0"].update_rule.hyperparam = Bag(opt.hyperparam)
    step(opt)
    np.testing.assert_array_equal(opt.target["p0"], twin(lambda opt: None, alpha=0.01))


def test_another_way_to_read_all_bags(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = Adam(alpha=0.01).setup(arrays())
    step(opt)
    read = Hyperparameter.get_dict
    monkeypatch.setattr(Hyperparameter, "get_dict", lambda self: {**read(self), "alpha": 0.25})
    opt.beta1 = 0.8
    step(opt)
    monkeypatch.undo()

    def changed(opt: Any) -> None:
        opt.beta1, opt.alpha = 0.8, 0.25

    expected = twin(lambda opt: None, changed, alpha=0.01)
    np.testing.assert_array_equal(opt.target["p0"], expected)
