"""The mapping from path to parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Link, Parameter


@pytest.fixture
def opt() -> fastadam.Adam:
    tree = {
        "l1": {"W": np.zeros((2, 3), "f4"), "b": np.zeros(3)},
        "l2": {"W": np.zeros((3, 1000)), "b": np.zeros(())},
        "b": np.zeros(1),
    }
    return fastadam.Adam().setup(tree)


PATHS = ["l1/W", "l1/b", "l2/W", "l2/b", "b"]


def test_read_only_mapping(opt: fastadam.Adam) -> None:
    table = opt.parameters
    assert isinstance(table, Mapping)
    assert list(table) == list(table.keys()) == PATHS
    assert len(table) == 5
    assert "l1/W" in table
    assert "l1" not in table
    assert all(isinstance(param, Parameter) for param in table.values())
    assert table["l1/W"].array is opt.target["l1"]["W"]
    assert table["l1/W"].name == "l1/W"
    with pytest.raises(TypeError):
        table["x"] = Parameter(np.zeros(1))  # type: ignore[index]
    with pytest.raises(TypeError):
        del table["l1/W"]  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        opt.parameters = {}  # type: ignore[assignment,misc]


def test_unknown_path_names_the_known_ones(opt: fastadam.Adam) -> None:
    with pytest.raises(KeyError, match=r"'l1/w'.*'l1/W', 'l1/b'"):
        opt.parameters["l1/w"]
    assert opt.parameters.get("nothing") is None


def test_before_setup() -> None:
    with pytest.raises(RuntimeError, match="setup"):
        fastadam.Adam().parameters  # noqa: B018


def test_prints_as_a_table(opt: fastadam.Adam) -> None:
    opt.apply_gradients({"l1": None, "l2": None, "b": None})
    opt.parameters["l1/b"].update_rule.enabled = False
    opt.parameters["l2/b"].update_rule = None
    opt.apply_gradients({"l1": None, "l2": None, "b": None})
    assert repr(opt.parameters).splitlines() == [
        "path  shape      dtype    elements  rule      t",
        "l1/W  (2, 3)     float32         6  enabled   2",
        "l1/b  (3,)       float64         3  disabled  1",
        "l2/W  (3, 1000)  float64      3000  enabled   2",
        "l2/b  ()         float64         1  none      -",
        "b     (1,)       float64         1  enabled   2",
    ]


def test_prints_lazy_parameters() -> None:
    opt = fastadam.Adam().setup(Link(lazy=None))
    assert repr(opt.parameters).splitlines() == [
        "path  shape  dtype  elements  rule     t",
        "lazy  -      -             -  enabled  0",
    ]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("*/b", ["l1/b", "l2/b"]),
        ("*b", ["l1/b", "l2/b", "b"]),
        ("b", ["b"]),
        ("l1/*", ["l1/W", "l1/b"]),
        ("l[12]/W", ["l1/W", "l2/W"]),
        ("*", PATHS),
        (lambda path, param: param.array.ndim == 2, ["l1/W", "l2/W"]),
        (lambda path, param: path.startswith("l2") and param.update_rule.t == 0, ["l2/W", "l2/b"]),
    ],
)
def test_matching(opt: fastadam.Adam, which: Any, expected: list[str]) -> None:
    assert opt.parameters.matching(which) == expected
    assert opt.set_hyperparam(which, alpha=0.5) == expected
    for path, param in opt.parameters.items():
        assert param.update_rule.hyperparam.alpha == (0.5 if path in expected else 0.001)


@pytest.mark.parametrize("which", ["x*", "L1/W", "", lambda path, param: False])
def test_nothing_matches(opt: fastadam.Adam, which: Any) -> None:
    with pytest.raises(ValueError, match="'l1/W'"):
        opt.parameters.matching(which)
    with pytest.raises(ValueError, match="no parameter"):
        opt.set_hyperparam(which, alpha=0.5)


def test_is_a_view_of_the_moment(opt: fastadam.Adam) -> None:
    opt.target["new"] = np.zeros(2)
    assert list(opt.parameters) == [*PATHS, "new"]
    opt.apply_gradients({"l1": None, "l2": None, "b": None, "new": None})
    assert opt.parameters["new"].update_rule.t == 1


def test_settings_of_single_parameters_are_shown(opt: fastadam.Adam) -> None:
    assert "settings" not in repr(opt.parameters)
    opt.set_hyperparam("*/b", beta1=np.float32(0.5), weight_decay_rate=0)
    opt.parameters["l1/W"].update_rule.add_hook(lambda rule, param: None, "mine")
    opt.parameters["b"].update_rule.enabled = False
    opt.parameters["l2/W"].update_rule = None
    lines = dict(zip(["head", *PATHS], str(opt.parameters).splitlines(), strict=True))
    start = lines["head"].index("settings")
    assert {path: line[start:] for path, line in lines.items()} == {
        "head": "settings",
        "l1/W": "hooks mine",
        "l1/b": "beta1=0.5, weight_decay_rate=0",
        "l2/W": "",
        "l2/b": "beta1=0.5, weight_decay_rate=0",
        "b": "",
    }
    assert "disabled" in lines["b"]
    for name in ("beta1", "weight_decay_rate"):
        del opt.parameters["l1/b"].update_rule.hyperparam.__dict__[name]
    assert "beta1" not in str(opt.parameters).splitlines()[2]


def test_masters_are_shown() -> None:
    opt = fastadam.Adam().setup({"half": np.zeros(2, np.float16), "single": np.zeros(2, "f4")})
    opt.use_fp32_update()
    opt.set_hyperparam("half", amsgrad=True)
    _, half, single = str(opt.parameters).splitlines()
    assert half.endswith("  amsgrad=True, fp32 master")
    assert single.endswith("  enabled  0")
