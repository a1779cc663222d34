"""The gate of arrays: what cannot be a parameter, or a gradient, is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, AdamRule, AMSBound, Link, Parameter, UpdateRule, adam_step


def read_only() -> np.ndarray:
    array = np.ones(3)
    array.flags.writeable = False
    return array


# What can never be a parameter, and a word of why.
BAD: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "int64": (lambda: np.arange(3), "int64"),
    "uint8": (lambda: np.ones(3, "u1"), "uint8"),
    "bool": (lambda: np.ones(3, bool), "bool"),
    "complex": (lambda: np.ones(3, "c8"), "complex64"),
    "longdouble": (lambda: np.ones(3, "g"), "longdouble|float128|float96"),
    "object": (lambda: np.array([1.0, None, 2.0]), "object"),
    "text": (lambda: np.array(["a", "b", "c"]), "U1"),
    "records": (lambda: np.zeros(3, [("x", "f4")]), "x"),
    "bytes of two": (lambda: np.zeros(3, "V2"), "V2|void"),
    "dates": (lambda: np.zeros(3, "M8[s]"), "datetime64"),
    "byte-swapped": (lambda: np.ones(3, np.dtype("f4").newbyteorder()), "byte-swapped"),
    "byte-swapped half": (lambda: np.ones(3, np.dtype("f2").newbyteorder()), "byte-swapped"),
    "read-only": (read_only, "read-only"),
    "broadcast": (lambda: np.broadcast_to(np.ones(1), 3), "read-only"),
    "spread": (lambda: np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,)), "share memory"),
    "windows": (
        lambda: np.lib.stride_tricks.as_strided(np.ones(4), (3, 2), (8, 8)),
        "share memory",
    ),
    "masked": (lambda: np.ma.array(np.ones(3), mask=[0, 1, 0]), "masked"),
    "masked nowhere": (lambda: np.ma.array(np.ones(3)), "masked"),
    "masked 0-d": (lambda: np.ma.array(1.0), "masked"),
}
# The classes by which they are refused.
ERRORS = (TypeError, ValueError)


def link_of(array: Any) -> Link:
    link = Link()
    with link.init_scope():
        link.w = Parameter(np.ones(2))
        link.x = Parameter(array, name="x")
    return link


class Others:
    """An object with params(), of parameters of somebody's own."""

    class Param:
        def __init__(self, name: str, array: Any) -> None:
            self.name, self.array, self.grad = name, array, None
            self.update_rule: Any = None

        def cleargrad(self) -> None:
            self.grad = None

    def __init__(self, array: Any) -> None:
        self.all = [self.Param("w", np.ones(2)), self.Param("x", array)]

    def params(self) -> Any:
        return iter(self.all)


# Every kind of target, and how it calls its second parameter.
TARGETS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dict": (lambda array: {"w": np.ones(2), "x": array}, "'x'"),
    "nested": (lambda array: {"w": np.ones(2), "l": {"x": [array]}}, "'l/x/0'"),
    "list": (lambda array: [np.ones(2), array], "'1'"),
    "tuple": (lambda array: (np.ones(2), array), "'1'"),
    "array": (lambda array: array, "'param'"),
    "link": (link_of, "'x'"),
    "chain": (lambda array: fastadam.Chain(l=link_of(array)), "'x'|'l/x'"),
    "params()": (Others, "'1'"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_refused_at_setup(target: str) -> None:
    make, name = TARGETS[target]
    for case, (bad, word) in BAD.items():
        for kind in (Adam, AMSBound):
            for before in (False, True):
                opt = kind()
                if before:
                    opt.setup({"old": np.ones(2)})
                    opt.apply_gradients({"old": np.ones(2)})
                old = copy.copy(opt.__dict__)
                with pytest.raises(ERRORS, match=f"(?s)({name}).*({word})") as caught:
                    opt.setup(make(bad()))
                assert type(caught.value) in ERRORS, case
                assert opt.__dict__ == old, case
                if before:
                    # the old target trains on
                    opt.apply_gradients({"old": np.ones(2)})
                    assert opt.t == 2


def test_rules_of_a_refused_link_stay() -> None:
    array = np.ones(3)
    link = link_of(array)
    opt = Adam().setup(link)
    rules = [param.update_rule for param in link.params()]
    array.flags.writeable = False
    for other in (opt, Adam()):
        with pytest.raises(ValueError, match="'x'"):
            other.setup(link)
        assert [param.update_rule for param in link.params()] == rules
    array.flags.writeable = True
    opt.apply_gradients({"w": np.ones(2), "x": np.ones(3)})
    assert opt.t == 1


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_late_parameters_are_refused_at_the_next_update(updates: int) -> None:
    for case, (bad, _) in BAD.items():
        tree: dict[str, Any] = {"w": np.ones(2)}
        opt = Adam().setup(tree)
        for _ in range(updates):
            opt.apply_gradients({"w": np.ones(2)})
        rule = opt.parameters["w"].update_rule
        before = tree["w"].copy(), copy.deepcopy(rule.state), rule.t, opt.t
        tree["x"] = bad()
        for _ in range(2):
            with pytest.raises(ERRORS, match="'x'"):
                opt.apply_gradients({"w": np.ones(2), "x": np.ones(tree["x"].shape)})
            np.testing.assert_equal((tree["w"], rule.state, rule.t, opt.t), before, err_msg=case)
        tree["x"] = np.ones(3)
        opt.apply_gradients({"w": np.ones(2), "x": np.ones(3)})
        assert (opt.t, rule.t) == (updates + 1, updates + 1), case


def test_a_replaced_parameter_is_refused_at_the_next_update() -> None:
    for case, (bad, _) in BAD.items():
        tree: dict[str, Any] = {"w": np.ones(2), "x": np.ones(3)}
        opt = Adam().setup(tree)
        for _ in range(2):
            opt.apply_gradients({"w": np.ones(2), "x": np.ones(3)})
        before, good = tree["w"].copy(), tree["x"]
        tree["x"] = bad()
        with pytest.raises(ERRORS, match="'x'"):
            opt.apply_gradients({"w": np.ones(2), "x": np.ones(tree["x"].shape)})
        np.testing.assert_array_equal(tree["w"], before, err_msg=case)
        tree["x"] = good
        opt.apply_gradients({"w": np.ones(2), "x": np.ones(3)})
        assert opt.t == 3, case


def test_links_and_parameters_take_no_masked_array() -> None:
    masked = np.ma.array(np.ones(3), mask=[0, 1, 0])
    with pytest.raises(TypeError, match="masked"):
        Parameter(masked, name="x")
    param = Parameter(np.ones(3), name="x")
    for set_it in (
        lambda: setattr(param, "array", masked),
        lambda: setattr(param, "data", masked),
        lambda: setattr(param, "grad", masked),
        lambda: param.lend_grad(masked),
        lambda: param.lend_grad([masked[0], masked[1], masked[2]]),
    ):
        with pytest.raises(TypeError, match=r"'x'.*masked"):
            set_it()
    assert param.grad is None
    np.testing.assert_array_equal(param.array, 1)


def test_persistent_values_are_no_parameters() -> None:
    link = link_of(np.ones(3))
    link.add_persistent("count", np.arange(3))
    link.add_persistent("fixed", read_only())
    link.add_persistent("mask", np.ma.array([1.0, 2.0], mask=[0, 1]))
    opt = Adam().setup(link)
    opt.apply_gradients({"w": np.ones(2), "x": np.ones(3)})
    np.testing.assert_array_equal(link.count, np.arange(3))


def test_users_rules_may_take_what_adam_cannot() -> None:
    class Counts(UpdateRule):
        def update_core(self, param: Any) -> None:
            param.array[...] += 1

    class Method(fastadam.GradientMethod):
        def create_update_rule(self) -> UpdateRule:
            return Counts(self.hyperparam)

    class Mine(AdamRule):
        def update_core(self, param: Any) -> None:
            param.array[...] += 1

    class MyAdam(Adam):
        def create_update_rule(self) -> UpdateRule:
            return Mine(self.hyperparam)

    for kind in (Method, MyAdam):
        numbers = np.ones(3, "g")
        kind().setup({"n": numbers}).apply_gradients({"n": np.ones(3)})
        np.testing.assert_array_equal(numbers, 2)


def stepped(array: np.ndarray, gradients: list[Any], **hyper: Any) -> np.ndarray:
    """The array, after updates by an optimizer."""
    opt = Adam(alpha=0.1, **hyper).setup({"x": array})
    opt.add_hook(fastadam.optimizer_hooks.WeightDecay(0.1))
    for gradient in gradients:
        opt.apply_gradients({"x": gradient})
    return np.array(array, subok=False)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_unusual_arrays_give_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((2, 3), (), (0,), (3, 0), (1,), (5,)):
        values = rng.normal(size=shape).astype("f4")
        gradients = [rng.normal(size=shape).astype("f4") for _ in range(4)]
        expected = stepped(values.copy(), gradients)

        class Sub(np.ndarray):
            pass

        arrays: dict[str, Any] = {"subclass": values.copy().view(Sub)}
        if len(shape) == 2:
            arrays["matrix"] = np.matrix(values)
            arrays["Fortran"] = np.asfortranarray(values)
        if values.size and shape:
            file = tmp_path / f"a{len(shape)}{values.size}"
            values.tofile(file)
            arrays["memmap"] = np.memmap(file, "f4", "r+", shape=shape)
            spaced = np.zeros((*shape, 2), "f4")
            spaced[..., 0] = values
            arrays["strided"] = spaced[..., 0]
            backwards = np.zeros(shape, "f4")[::-1]
            backwards[...] = values
            arrays["reversed"] = backwards
            record = np.zeros(shape, [("a", "i1"), ("x", "f4")])
            record["x"] = values
            arrays["misaligned"] = record["x"]
        for case, array in arrays.items():
            found = stepped(array, gradients)
            assert found.tobytes() == expected.tobytes(), (case, shape)
            assert found.shape == shape or case == "matrix"
        for case, change in {
            "matrix": np.matrix if len(shape) == 2 else np.asarray,
            "subclass": lambda g: g.view(Sub),
            "byte-swapped": lambda g: g.astype(g.dtype.newbyteorder()),
            "read-only": lambda g: np.broadcast_to(g, g.shape),
            "wider": lambda g: g.astype("f8"),
            "list": lambda g: np.asarray(g.tolist(), "f4") if g.size else g,
        }.items():
            found = stepped(values.copy(), [change(g) for g in gradients])
            assert found.tobytes() == expected.tobytes(), (case, shape)


def test_a_read_only_memmap_is_refused(tmp_path: Path) -> None:
    np.ones(3).tofile(tmp_path / "a")
    with pytest.raises(ValueError, match=r"'x'.*read-only"):
        Adam().setup({"x": np.memmap(tmp_path / "a", "f8", "r")})


BAD_GRADIENTS: dict[str, tuple[Any, type[Exception]]] = {
    "integers": (np.arange(3), TypeError),
    "booleans": (np.ones(3, bool), TypeError),
    "complex": (np.ones(3, "c16"), TypeError),
    "objects": (np.array([1.0, None, 2.0]), TypeError),
    "records": (np.zeros(3, [("x", "f4")]), TypeError),
    "text": (np.array(["1", "2", "3"]), TypeError),
    "masked": (np.ma.array(np.ones(3), mask=[0, 1, 0]), TypeError),
    "masked nowhere": (np.ma.array(np.ones(3)), TypeError),
    "masked parts": ([np.ma.masked, 1.0, 2.0], TypeError),
    "masked constant": (np.ma.masked, TypeError),
    "longer": (np.ones(4), ValueError),
    "shorter": (np.ones(2), ValueError),
    "one number": (1.0, ValueError),
    "one element": (np.ones(1), ValueError),
    "row": (np.ones((1, 3)), ValueError),
    "empty": (np.ones(0), ValueError),
    "ragged": ([[1.0], [1.0, 2.0], 3.0], TypeError),
}


@pytest.mark.parametrize("case", BAD_GRADIENTS)
def test_bad_gradients_change_nothing(case: str) -> None:
    bad, error = BAD_GRADIENTS[case]
    for updates in (0, 1, 3):
        for make, w, x in (
            (lambda: {"w": np.ones(3), "x": np.ones(3)}, "w", "x"),
            (lambda: link_of(np.ones(3)), "w", "x"),
            (lambda: {"w": np.ones(3, "f2"), "x": np.ones(3, "f2")}, "w", "x"),
        ):
            opt = Adam().setup(make())
            shapes = {path: param.shape for path, param in opt.parameters.items()}
            for _ in range(updates):
                opt.apply_gradients({path: np.ones(shape) for path, shape in shapes.items()})
            before = [
                (p.array.tobytes(), copy.deepcopy(p.update_rule.state), p.update_rule.t)
                for p in opt.parameters.values()
            ]
            grads = {w: np.ones(shapes[w]), x: bad}
            for call in (
                lambda grads=grads, opt=opt: opt.apply_gradients(grads),
                lambda grads=grads, opt=opt: opt.update(lambda: (0.5, grads)),
            ):
                with pytest.raises(error, match=f"'{x}'"):
                    call()
            after = [
                (p.array.tobytes(), p.update_rule.state, p.update_rule.t)
                for p in opt.parameters.values()
            ]
            np.testing.assert_equal(after, before)
            assert opt.t == updates


def test_adam_step_refuses_the_same() -> None:
    for case, (bad, word) in BAD.items():
        p = bad()
        arrays = [np.ones(p.shape) for _ in range(3)]
        with pytest.raises(ERRORS, match=f"(?s)'param'.*({word})"):
            adam_step(p, *arrays, t=1)
        assert all((array == 1).all() for array in arrays), case
    for case, (g, _) in BAD_GRADIENTS.items():
        arrays = [np.ones(3) for _ in range(3)]
        with pytest.raises(ERRORS, match="'param'"):
            adam_step(arrays[0], g, *arrays[1:], t=1)
        assert all((array == 1).all() for array in arrays), case
    for i in (0, 2, 3):
        arrays = [np.ones(3) for _ in range(4)]
        arrays[i] = np.ma.array(arrays[i])
        with pytest.raises(TypeError, match="masked"):
            adam_step(*arrays, t=1)


def test_masked_states_are_refused() -> None:
    for key in ("m", "v", "vhat"):
        w = np.ones(3)
        opt = fastadam.AMSGrad().setup({"w": w})
        for _ in range(3):
            opt.apply_gradients({"w": np.ones(3)})
        state = opt.parameters["w"].update_rule.state
        state[key] = np.ma.array(state[key])
        before = w.copy()
        with pytest.raises(TypeError, match=f"'w'.*{key}.*masked"):
            opt.apply_gradients({"w": np.ones(3)})
        np.testing.assert_array_equal(w, before)


def test_gradients_of_others_parameters() -> None:
    """Their setters take anything; the update does not."""
    for bad in (np.ma.array(np.ones(3)), np.arange(3), np.ones(2), np.ones(3, "c8")):
        for updates in (0, 2):
            others = Others(np.ones(3))
            opt = Adam().setup(others)
            for _ in range(updates):
                for param in others.all:
                    param.grad = np.ones(param.array.shape)
                opt.update()
            before = [param.array.copy() for param in others.all]
            others.all[0].grad, others.all[1].grad = np.ones(2), bad
            with pytest.raises(ERRORS, match="'1'"):
                opt.update()
            for param, old in zip(others.all, before, strict=True):
                np.testing.assert_array_equal(param.array, old)
            assert opt.t == updates
