"""Every row of docs/errors.rst: what comes, what its message names, and what is left unchanged."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import re
import signal
import sys
import threading
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Adam, GradientMethod, Link, Parameter, UpdateRule
from fastadam import optimizer as ours
from fastadam.optimizer_hooks import GradientClipping
from fastadam.optimizers import decay_advice
from fastadam.serializers import serialize

sys.path.insert(0, str(Path(__file__).parent / "checkpoint"))
from sealing import sealed

PAGE = Path(__file__).parents[1] / "docs" / "errors.rst"

NUMBERS: dict[str, Any] = {
    "alpha": 0.25,
    "beta1": 0.75,
    "beta2": 0.875,
    "eps": 1e-3,
    "eta": 0.5,
    "weight_decay_rate": 0.125,
    "amsgrad": True,
    "adabound": True,
    "final_lr": 0.5,
    "gamma": 0.25,
}


# -- what is compared ----------------------------------------------------------------------------


def frozen(value: Any) -> Any:
    """An array as something that keeps its bits and can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value


def gradients_of(opt: Any) -> dict[str, Any]:
    """Every gradient as it is, without the copy that reading ``grad`` may make."""
    return {
        path: (frozen(p._grad), p._grad_borrowed, p._loss_scale)
        for path, p in opt._targets.parameters.items()
    }


def of_parameter(param: Any) -> tuple[Any, ...]:
    """One parameter with its rule: p, m, v, vhat, t, hyperparameters, hooks, master."""
    rule = param.update_rule
    if rule is None:
        return frozen(param.array), None
    state = rule.state
    if state is not None:
        state = {key: frozen(value) for key, value in state.items()}
    master = rule._fp32_param
    return (
        id(param.array),
        frozen(param.array),
        state,
        rule.t,
        rule.enabled,
        rule.hyperparam.get_dict(),
        list(rule._hooks),
        None if master is None else frozen(master.array),
    )


def everything(opt: Any) -> dict[str, Any]:
    """All that an update, a hook or a setting may change, but gradients."""
    scaling = [name for name in dir(opt) if name.startswith("_loss_scal")]
    targets = opt._targets
    found = {
        "own": {
            k: v
            for k, v in opt.__getstate__().items()
            # a report is made when it is looked at; the target is compared below
            if k not in ("hyperparam", "_hooks", "_known", "_whole", "_last", "target")
        },
        "t": (opt.t, opt.epoch, opt.last_update, opt.on_nonfinite),
        "hyperparam": opt.hyperparam.get_dict(),
        "scaling": {name: getattr(opt, name) for name in scaling if name != "_loss_scaling_isnan"},
        "hooks": None if opt._hooks is None else list(opt._hooks),
    }
    found["own"].pop("_loss_scaling_isnan", None)
    # its value is among those of `scaling`
    found["own"].pop("_loss_scaling_isnan_ever", None)
    found["own"].pop("_facts", None)
    found["own"].pop("_unscaled", None)
    if targets is not None:
        found["target"] = id(opt.target)
        found["parameters"] = {path: of_parameter(p) for path, p in targets.parameters.items()}
    return found


@contextlib.contextmanager
def refused(
    opt: Any, error: type[BaseException], *words: str, gradients: bool = True
) -> Iterator[None]:
    """Expect exactly this error, whose message has all the words, and that nothing changed."""
    before = everything(opt)
    grads = gradients_of(opt) if opt._targets is not None else None
    with pytest.raises(error) as caught:
        yield
    assert caught.type is error
    said(caught.value, *words)
    assert everything(opt) == before
    if gradients and grads is not None:
        assert gradients_of(opt) == grads


def said(error: BaseException, *words: str) -> None:
    """Check that a message names all that it should."""
    text = str(error)
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


# -- what is trained -----------------------------------------------------------------------------


def tree() -> dict[str, Any]:
    """Two float64 parameters and a float32 one."""
    return {
        "a": np.array([1.0, -2.0, 3.0]),
        "l1": {
            "W": np.array([[0.5, -1.5], [2.5, 1.25]], np.float32),
            "b": np.array([4.0, -0.25]),
        },
    }


def grads(seed: int = 0) -> dict[str, Any]:
    """Gradients of `tree`."""
    rng = np.random.default_rng(seed)
    return {
        "a": rng.normal(size=3),
        "l1": {"W": rng.normal(size=(2, 2)).astype("f4"), "b": rng.normal(size=2)},
    }


def trained(**others: Any) -> Adam:
    """Adam with all of its parts in use, after two steps, an epoch and with hooks."""
    opt = Adam(**{**NUMBERS, **others}).setup(tree())
    opt.add_hook(lambda opt: None, "first")
    opt.add_hook(lambda opt: None, "last", "post")
    opt.new_epoch()
    opt.apply_gradients(grads(0))
    opt.apply_gradients(grads(1))
    return opt


def trained_link() -> Adam:
    """The same for a link, whose parameters keep gradients of their own."""
    link = Link(W=(2, 3), b=2)
    link.W.array[...], link.b.array[...] = 1.5, -2.0
    opt = Adam(**NUMBERS).setup(link)
    opt.apply_gradients({"W": np.ones((2, 3)), "b": np.full(2, -1.0)})
    link.W.grad, link.b.grad = np.full((2, 3), 0.5, "f4"), np.full(2, 0.25, "f4")
    return opt


def goes_on(opt: Adam, **others: Any) -> None:
    """Check that the next step is that of an optimizer to which nothing has happened."""
    twin = trained(**others)
    for one in (opt, twin):
        one.apply_gradients(grads(2))
    for path, param in twin.parameters.items():
        assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]
    assert (opt.t, opt.epoch) == (twin.t, twin.epoch)


class Foreign:
    """An array that, like CuPy's, does not let NumPy have its elements."""

    shape, ndim, size, dtype = (3,), 1, 3, np.dtype(np.float64)

    def __array__(self, *args: Any, **kwds: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use .get()")

    def __array_function__(self, function: Any, *args: Any, **kwds: Any) -> Any:
        assert function is np.zeros_like
        return Foreign()


Foreign.__module__, Foreign.__qualname__, Foreign.__name__ = "cupy", "ndarray", "ndarray"


class JaxLike:
    """An array that, like JAX's, NumPy can read and nobody can write."""

    shape, ndim, size, dtype = (3,), 1, 3, np.dtype(np.float64)

    def __jax_array__(self) -> Any:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        array = np.array([0.5, -0.5, 1.0])
        array.flags.writeable = False
        return array


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["weights", None, {1.0}, object(), Adam()])
def test_target_of_another_kind(bad: Any) -> None:
    opt = trained()
    with refused(opt, TypeError, "target", type(bad).__name__, "NumPy array", "link"):
        opt.setup(bad)
    goes_on(opt)


@pytest.mark.parametrize("bad", [3, 2.5, True, 1j, np.float32(1)])
def test_target_that_is_a_number(bad: Any) -> None:
    opt = trained()
    with refused(opt, TypeError, "target", repr(bad), "in place", "numpy.array(...)"):
        opt.setup(bad)
    goes_on(opt)


def test_number_in_a_dict() -> None:
    opt = trained()
    with refused(opt, TypeError, "parameter 'l1/b'", "0.5", "numpy.array(...)"):
        opt.setup({"l1": {"W": np.zeros(2), "b": 0.5}})
    goes_on(opt)


@pytest.mark.parametrize("bad", [{}, [], (), {"l1": {}, "l2": []}])
def test_target_without_arrays(bad: Any) -> None:
    opt = trained()
    with refused(opt, ValueError, "target holds no array"):
        opt.setup(bad)
    goes_on(opt)


@pytest.mark.parametrize("path", ["a", "l1/W"])
def test_target_of_a_gpu_or_another_library(path: str) -> None:
    opt = trained()
    for kind, words in [(Foreign, ("cupy.ndarray", "NumPy")), (JaxLike, ("JAX", "numpy.array(x)"))]:
        bad = tree()
        if path == "a":
            bad["a"] = kind()
        else:
            bad["l1"]["W"] = kind()
        with refused(opt, TypeError, f"parameter {path!r}", *words):
            opt.setup(bad)
        with refused(opt, TypeError, "the optimization target", *words):
            opt.setup(kind())
    goes_on(opt)


@pytest.mark.parametrize("key", ["", "l1/W", "/", 3, ("l1", "W"), None])
def test_keys_that_cannot_be_paths(key: Any) -> None:
    opt = trained()
    error = ValueError if isinstance(key, str) else TypeError
    for bad in ({key: np.zeros(2)}, {"l2": [{key: np.zeros(2)}]}):
        where = "in the target " if key in bad else "in 'l2/0' "
        with refused(opt, error, f"the key {key!r}", where):
            opt.setup(bad)
    goes_on(opt)


@pytest.mark.parametrize("key", ["t", "epoch"])
def test_keys_that_files_need(key: str) -> None:
    opt = trained()
    with refused(opt, ValueError, f"top-level key {key!r}", "state files", "rename"):
        opt.setup({"w": np.zeros(2), key: np.zeros(2)})
    goes_on(opt)
    Adam().setup({"l1": {key: np.zeros(2)}})


@pytest.mark.parametrize("second", [np.s_[1:4], np.s_[::-1], np.s_[::2]])
def test_arrays_that_overlap(second: Any) -> None:
    opt, whole = trained(), np.arange(5.0)
    with refused(opt, ValueError, "'one'", "'l/two'", "share part of their memory", "copy"):
        opt.setup({"one": whole, "l": {"two": whole[second]}})
    np.testing.assert_array_equal(whole, np.arange(5))
    goes_on(opt)


def test_parameter_as_target() -> None:
    opt = trained()
    with refused(opt, TypeError, "link that holds the parameter", "its array"):
        opt.setup(Parameter(np.zeros(2)))
    goes_on(opt)


def test_target_that_has_become_bad() -> None:
    for key, bad, error, words in [
        ("new", 0.5, TypeError, ("'new'", "numpy.array(...)")),
        ("new", Foreign(), TypeError, ("'new'", "cupy.ndarray")),
        ("", np.zeros(2), ValueError, ("''", "empty")),
        ("t", np.zeros(2), ValueError, ("'t'", "rename")),
    ]:
        opt = trained()
        opt.target[key] = bad
        for call in (lambda o: o.apply_gradients(grads(2)), lambda o: o.parameters):
            with refused(opt, error, *words):
                call(opt)
        with refused(opt, error, *words):
            opt.update(lambda: (0.5, grads(2)))
        del opt.target[key]
        goes_on(opt)


@pytest.mark.parametrize("left", [{}, {"l1": {}}, {"l1": [], "l2": ({},)}])
def test_target_that_has_become_empty(left: dict[str, Any]) -> None:
    for call in (
        lambda opt: opt.apply_gradients(left),
        lambda opt: opt.update(lambda: (0.5, left)),
        lambda opt: opt.update(),
        lambda opt: opt.parameters,
        serialize,
    ):
        opt = trained()
        whole = dict(opt.target)
        opt.target.clear()
        opt.target.update(left)
        for _ in range(2):
            with refused(opt, ValueError, "target holds no array", "nothing to train"):
                call(opt)
        opt.target.clear()
        opt.target.update(whole)
        goes_on(opt)
    arrays = [np.ones(2), np.ones(3)]
    of_list = Adam().setup(arrays)
    of_list.apply_gradients([np.ones(2), np.ones(3)])
    arrays.clear()
    with refused(of_list, ValueError, "target holds no array"):
        of_list.apply_gradients([])
    assert of_list.t == 1
    # as in Chainer, a link may have no parameter yet
    of_link = Adam().setup(Link())
    of_link.update()
    of_link.apply_gradients({})
    assert of_link.t == 2


# -- before setup --------------------------------------------------------------------------------

BEFORE_SETUP = {
    "update": lambda opt: opt.update(),
    "update with a loss": lambda opt: opt.update(pytest.fail),
    "apply_gradients": lambda opt: opt.apply_gradients(np.ones(3)),
    "serialize": serialize,
    "parameters": lambda opt: opt.parameters,
    "set_hyperparam": lambda opt: opt.set_hyperparam("*", alpha=1),
    "add_hook": lambda opt: opt.add_hook(len, "hook"),
    "remove_hook": lambda opt: opt.remove_hook("hook"),
    "call_hooks": lambda opt: opt.call_hooks("post"),
    "call_hook": lambda opt: opt.call_hook(len),
    "reallocate_cleared_grads": lambda opt: opt.reallocate_cleared_grads(),
}


@pytest.mark.parametrize("call", BEFORE_SETUP)
def test_before_setup(call: str) -> None:
    opt = Adam(**NUMBERS)
    with refused(opt, RuntimeError, "Adam has no target", "setup(target)"):
        BEFORE_SETUP[call](opt)


def test_alpha_t_before_the_first_update() -> None:
    opt = Adam(**NUMBERS).setup(tree())
    with refused(opt, RuntimeError, "alpha_t", "no update has been made"):
        _ = opt.alpha_t
    rule = opt.parameters["a"].update_rule
    with refused(opt, RuntimeError, "alpha_t", "no update has been made"):
        _ = rule.alpha_t
    with refused(opt, RuntimeError, "bounds", "no update has been made"):
        _ = rule.bounds


def test_optimizer_without_rules() -> None:
    method = GradientMethod()
    with pytest.raises(NotImplementedError) as caught:
        method.setup(np.zeros(2))
    said(caught.value, "GradientMethod", "create_update_rule")


# -- gradients -----------------------------------------------------------------------------------


def replaced(path: str, value: Any, seed: int = 2) -> dict[str, Any]:
    """Gradients with another one at a path."""
    found = grads(seed)
    (found if path == "a" else found["l1"])[path.rpartition("/")[2]] = value
    return found


@pytest.mark.parametrize("shape", [(2,), (), (3, 1), (1, 2), (1, 1, 2, 2), (0,)])
def test_gradient_of_another_shape(shape: tuple[int, ...]) -> None:
    opt = trained()
    for path, right in (("a", (3,)), ("l1/W", (2, 2))):
        bad = replaced(path, np.ones(shape))
        with refused(opt, ValueError, f"parameter {path!r}", str(shape), str(right)):
            opt.apply_gradients(bad)
        with refused(opt, ValueError, f"parameter {path!r}", str(shape), str(right)):
            opt.update(lambda bad=bad: (0.5, bad))
    goes_on(opt)
    link = trained_link()
    bad = {"W": np.ones((2, 3)), "b": np.ones((*shape, 9))}
    with refused(link, ValueError, "parameter 'b'", str((*shape, 9)), "(2,)"):
        link.apply_gradients(bad, loss_scale=8.0)


@pytest.mark.parametrize("dtype", ["i4", "u1", "?", "c16", "U3", "M8[s]"])
def test_gradient_of_another_dtype(dtype: str) -> None:
    opt = trained()
    for path, shape in (("a", 3), ("l1/W", (2, 2))):
        with refused(opt, TypeError, f"parameter {path!r}", str(np.dtype(dtype)), "floating"):
            opt.apply_gradients(replaced(path, np.zeros(shape, dtype)))
    goes_on(opt)


def test_gradient_that_numpy_cannot_have() -> None:
    opt = trained()
    for path in ("a", "l1/b"):
        with refused(opt, TypeError, f"parameter {path!r}", "array of numbers", ".get()"):
            opt.apply_gradients(replaced(path, Foreign()))
    with refused(opt, TypeError, "parameter 'a'", "array of numbers"):
        opt.apply_gradients(replaced("a", [[1.0], [2.0, 3.0]]))
    with refused(opt, TypeError, "parameter 'a'", "dtype object"):
        opt.apply_gradients(replaced("a", [None, 1.0, 2.0]))
    goes_on(opt)


def test_gradient_of_jax_is_taken() -> None:
    opt, twin = trained(), trained()
    opt.apply_gradients(replaced("a", JaxLike()))
    twin.apply_gradients(replaced("a", np.array([0.5, -0.5, 1.0])))
    for path, param in twin.parameters.items():
        assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]


def test_missing_gradient() -> None:
    opt = trained()
    partial = grads(2)
    del partial["l1"]["b"]
    with refused(opt, ValueError, "at 'l1'", "missing 'b'", "give None"):
        opt.apply_gradients(partial)
    with refused(opt, ValueError, "missing 'a', 'l1'", "give None"):
        opt.apply_gradients({})
    goes_on(opt)
    link = trained_link()
    with refused(link, ValueError, "missing 'b'"):
        link.apply_gradients({"W": np.ones((2, 3))})


def test_superfluous_gradient() -> None:
    opt = trained()
    with refused(opt, ValueError, "unknown 'z'"):
        opt.apply_gradients({**grads(2), "z": np.ones(2)})
    with refused(opt, ValueError, "missing 'a'", "unknown 'A', 'z'"):
        opt.apply_gradients({"z": 1, "A": np.ones(3), "l1": grads()["l1"]})
    goes_on(opt)


def test_gradients_of_another_structure() -> None:
    opt = trained()
    with refused(opt, ValueError, "the gradients", "dict like the target", "list"):
        opt.apply_gradients([np.ones(3), {}])
    with refused(opt, ValueError, "at 'l1'", "dict like the target", "ndarray"):
        opt.apply_gradients({"a": np.ones(3), "l1": np.ones(2)})
    for path in ("a", "l1/W"):
        shape = str(opt.parameters[path].array.shape)
        for bad in ({"x": np.ones(3)}, {}, types.MappingProxyType({"x": 1.0}), {1.0}, iter([1.0])):
            words = f"parameter {path!r}", f"array of shape {shape}", type(bad).__name__
            with refused(opt, TypeError, *words):
                opt.apply_gradients(replaced(path, bad))
            with refused(opt, TypeError, *words):
                opt.update(lambda bad=bad, path=path: (0.5, replaced(path, bad)))
    goes_on(opt)
    single = Adam().setup(np.ones(3))
    with refused(single, TypeError, "'param'", "array of shape (3,)", "dict"):
        single.apply_gradients({"param": np.ones(3)})
    pair = Adam().setup([np.ones(2), np.ones(2)])
    with refused(pair, ValueError, "2 expected", "got 3"):
        pair.apply_gradients([np.ones(2)] * 3)
    with refused(pair, ValueError, "list like the target", "dict"):
        pair.apply_gradients({"0": np.ones(2), "1": np.ones(2)})
    link = trained_link()
    with refused(link, TypeError, "mapping from path", "'W'", "list"):
        link.apply_gradients([np.ones((2, 3)), np.ones(2)])
    with refused(link, TypeError, "parameter 'b'", "array of shape (2,)", "dict"):
        link.apply_gradients({"W": np.ones((2, 3)), "b": {"x": np.ones(2)}})


def test_none_for_a_gradient() -> None:
    opt, twin = trained(), trained()
    opt.apply_gradients(replaced("l1/b", None))
    twin.apply_gradients(replaced("l1/b", np.zeros(2)))
    for path, param in twin.parameters.items():
        assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]


def test_none_for_all_gradients() -> None:
    words = "no gradients came, but None", "forget its return"

    def of_array() -> Adam:
        return Adam(**NUMBERS).setup(np.ones(3))

    def of_list() -> Adam:
        return Adam(**NUMBERS).setup([np.ones(3), np.ones(2)])

    steps: dict[Any, Any] = {
        of_array: np.ones(3),
        of_list: [np.ones(3), None],
        trained: grads(2),
        trained_link: {"W": np.ones((2, 3)), "b": None},
    }
    for make, good in steps.items():
        for updates in range(3):
            for missing in ("zeros", "skip"):
                opt, twin = make(), make()
                opt.missing_gradients = twin.missing_gradients = missing
                for one in [opt, twin] * updates:
                    one.apply_gradients(good)
                with refused(opt, TypeError, *words):
                    opt.apply_gradients(None)
                with refused(opt, TypeError, *words):
                    opt.apply_gradients(None, loss_scale=8.0)
                with refused(opt, TypeError, *words):
                    opt.update(lambda: (0.5, None))
                for one in (opt, twin):
                    one.apply_gradients(good)
                for path, param in twin.parameters.items():
                    assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]


def test_no_gradients() -> None:
    opt = trained()
    with refused(opt, ValueError, "no gradients", "update(lossfun, ...)", "apply_gradients"):
        opt.update()
    goes_on(opt)


def test_no_gradients_in_a_link() -> None:
    opt, twin = trained_link(), trained_link()
    opt.target.cleargrads()
    opt.update()
    twin.apply_gradients({"W": np.zeros((2, 3)), "b": np.zeros(2)})
    for path, param in twin.parameters.items():
        assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]


def test_loss_without_gradients() -> None:
    opt = trained()
    with refused(opt, TypeError, "returned float without gradients", "(loss, gradients)"):
        opt.update(lambda: 0.5)
    with refused(opt, TypeError, "returned None", "forget its return", "(loss, gradients)"):
        opt.update(lambda: None)
    goes_on(opt)
    opt = trained_link()
    with refused(opt, TypeError, "returned float", "(loss, gradients)", "backward()"):
        opt.update(lambda: 0.5)
    with refused(opt, TypeError, "returned None", "forget its return", "backward()"):
        opt.update(lambda: None)


def test_loss_with_more_than_gradients() -> None:
    for make in (trained, trained_link):
        opt = make()
        for more, count in [(("aux",), "tuple of 3"), (("aux", 0), "tuple of 4")]:
            words = f"returned a {count}", "pair (loss, gradients)", "((loss, more), gradients)"
            with refused(opt, TypeError, *words):
                opt.update(lambda more=more: (0.5, grads(2), *more))
        with refused(opt, TypeError, "returned a tuple of 1", "pair (loss, gradients)"):
            opt.update(lambda: (0.5,))
        with refused(opt, TypeError, "returned a list of 2", "a tuple, the pair (loss, gradients)"):
            opt.update(lambda: [0.5, grads(2)])
    opt, twin = trained(), trained()
    assert opt.update(lambda: ((0.5, "more"), grads(2))) == (0.5, "more")
    twin.apply_gradients(grads(2))
    for path, param in twin.parameters.items():
        assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]


@pytest.mark.parametrize("given", [grads(2), [np.ones(3)], np.ones(3), 0.5, "loss"])
def test_gradients_in_the_place_of_a_loss_function(given: Any) -> None:
    for opt in (trained(), trained_link()):
        words = "update", "loss function", type(given).__name__, "apply_gradients(gradients)"
        for more in ((), (grads(2),)):
            with refused(opt, TypeError, *words):
                opt.update(given, *more)


def test_assigned_gradient_that_does_not_fit() -> None:
    opt = trained_link()
    param = opt.target.W
    for bad, error, words in [
        (np.ones((3, 2), "f4"), ValueError, ("(3, 2)", "(2, 3)")),
        (np.ones((2, 3)), TypeError, ("float64", "float32", "astype('float32')")),
        ([[1.0] * 3] * 2, TypeError, ("numpy.ndarray", "list")),
        (Foreign(), TypeError, ("numpy.ndarray", "cupy.ndarray")),
    ]:
        with refused(opt, error, "parameter 'W'", *words):
            param.grad = bad


def test_gradient_of_an_uninitialised_parameter() -> None:
    opt = Adam(**NUMBERS).setup(Link(lazy=None, w=2))
    opt.target.w.grad = np.full(2, 0.5, "f4")
    with refused(opt, RuntimeError, "parameter 'lazy'", "uninitialised"):
        opt.apply_gradients({"lazy": np.ones(2), "w": np.ones(2)})
    with refused(opt, RuntimeError, "parameter 'lazy'", "uninitialised", "initialize()"):
        opt.target.lazy.grad = np.ones(2, "f4")


# -- parameters ----------------------------------------------------------------------------------


def test_parameter_that_cannot_be_stepped() -> None:
    opt, fixed = trained(), np.ones(3)
    fixed.flags.writeable = False
    spread = np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,))
    bad: list[tuple[Any, type[Exception], tuple[str, ...]]] = [
        (np.arange(3), TypeError, ("int64", "astype(numpy.float32)")),
        (np.ones(3, ">f8"), TypeError, ("byte-swapped", "'>f8'", "astype('<f8')")),
        (fixed, ValueError, ("read-only", "writable copy")),
        (spread, ValueError, ("(3,)", "share memory", "copy")),
    ]
    for dtype in ("c16", "?", "g", "O", "U3", [("x", "f4")]):
        bad.append((np.zeros(3, dtype), TypeError, (str(np.dtype(dtype)), "astype")))
    for array, error, words in bad:
        before = array.tobytes()
        with refused(opt, error, "parameter 'n'", *words):
            opt.setup({"w": np.ones(2), "n": array})
        assert array.tobytes() == before
    opt.target["n"] = np.arange(3)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"parameter 'n'.*int64"):
            opt.apply_gradients({**grads(2), "n": np.ones(3)})
    del opt.target["n"]
    goes_on(opt)


def test_integer_parameter_without_an_initializer() -> None:
    link = Link(w=2)
    for dtype in (int, "u1"):
        with pytest.raises(ValueError, match="NaN") as caught:
            link.add_param("n", (3,), dtype)
        said(caught.value, "parameter 'n'", "needs an initializer", str(np.dtype(dtype)))
    assert [path for path, _ in link.namedparams()] == ["/w"]
    assert not hasattr(link, "n")
    link.add_param("n", initializer=np.arange(3))
    assert link.n.array.dtype == int


def test_masked_parameter_or_gradient() -> None:
    opt = trained()
    for masked in (np.ma.array(np.ones(3)), np.ma.array(np.ones(3), mask=[0, 1, 0])):
        with refused(opt, TypeError, "parameter 'x'", "masked", "filled"):
            opt.setup({"w": np.ones(2), "x": masked})
        with refused(opt, TypeError, "parameter 'a'", "masked", "filled"):
            opt.apply_gradients(replaced("a", masked))
    goes_on(opt)


@pytest.mark.parametrize("path", ["a", "l1/W"])
@pytest.mark.parametrize("hooked", [False, True])
def test_read_only_parameter(path: str, hooked: bool) -> None:
    opt = trained()
    array = opt.parameters[path].array
    array.flags.writeable = False
    if hooked:
        opt.parameters[path].update_rule.add_hook(lambda rule, param: None, "hook")
    with refused(opt, ValueError, f"parameter {path!r}", "read-only", "writable copy"):
        opt.apply_gradients(grads(2))
    array.flags.writeable = True
    if hooked:
        opt.parameters[path].update_rule.remove_hook("hook")
    goes_on(opt)


def test_read_only_parameter_of_a_link() -> None:
    opt = trained_link()
    opt.target.b.array.flags.writeable = False
    with refused(opt, ValueError, "parameter 'b'", "read-only", "writable copy"):
        opt.update()
    opt.target.W.cleargrad()
    opt.target.b.grad, opt.target.b._loss_scale = np.full(2, 2.0, "f4"), 8.0
    with refused(opt, ValueError, "parameter 'b'", "read-only", gradients=False):
        opt.update()
    np.testing.assert_array_equal(opt.target.W.grad, np.zeros((2, 3)))
    np.testing.assert_array_equal(opt.target.b.grad, [0.25, 0.25])
    assert opt.target.b._loss_scale is None


class OthersParameter:
    """A parameter of another library's link."""

    update_rule: Any = None
    _loss_scale, _grad_borrowed, _fp32_param = None, False, None

    def __init__(self, name: str, array: Any, grad: Any) -> None:
        self.name, self.array, self.grad = name, array, grad

    _grad = property(lambda self: self.grad)

    def cleargrad(self) -> None:
        """Drop the gradient."""
        self.grad = None

    def update(self) -> None:
        """Let the rule do it."""
        self.update_rule.update(self)


@pytest.mark.parametrize("hooked", [False, True])
def test_link_on_a_gpu(hooked: bool) -> None:
    w = OthersParameter("w", np.ones(3), np.ones(3))
    x = OthersParameter("x", Foreign(), Foreign())
    opt = Adam(**NUMBERS).setup(types.SimpleNamespace(params=lambda: iter([w, x])))
    if hooked:
        x.update_rule.add_hook(lambda rule, param: None, "hook")
    with refused(opt, TypeError, "parameter '1'", "numpy.ndarray", "cupy.ndarray"):
        opt.update()
    with refused(opt, TypeError, "parameter 'x'", "numpy.ndarray", "cupy.ndarray"):
        opt.apply_gradients({"0": np.ones(3), "1": np.ones(3)})
    x.array = np.ones(3)
    with refused(opt, TypeError, "'1'", "gradient", "numpy.ndarray", "cupy.ndarray"):
        opt.update()


def test_read_only_half_parameter_with_a_master() -> None:
    half = np.ones(3, "f2")
    opt = Adam(**NUMBERS).setup({"h": half, "w": np.ones(2)})
    opt.use_fp32_update()
    opt.apply_gradients({"h": np.ones(3), "w": np.ones(2)})
    half.flags.writeable = False
    with refused(opt, ValueError, "parameter 'h'", "read-only", "writable copy"):
        opt.apply_gradients({"h": np.ones(3), "w": np.ones(2)})


def test_parameter_of_another_shape_than_its_state() -> None:
    opt = trained()
    old, opt.target["a"] = opt.target["a"], np.ones(4)
    _ = opt.parameters
    with refused(opt, ValueError, "parameter 'a'", "(4,)", "state m", "(3,)", "set the optimizer"):
        opt.apply_gradients(replaced("a", np.ones(4)))
    opt.target["a"] = old
    goes_on(opt)


def test_parameter_of_another_dtype_than_its_state() -> None:
    opt = trained()
    old, opt.target["a"] = opt.target["a"], np.ones(3, "f4")
    _ = opt.parameters
    with refused(opt, TypeError, "parameter 'a'", "float32", "state m", "float64", "set the"):
        opt.apply_gradients(grads(2))
    opt.target["a"] = old
    goes_on(opt)


@pytest.mark.parametrize("key", ["m", "v", "vhat"])
def test_states_of_adam_step_that_do_not_fit(key: str) -> None:
    arrays = {name: np.ones(3) for name in ("param", "grad", "m", "v", "vhat")}
    for bad, error, what, words in [
        (np.zeros(2), ValueError, "shape", ("(3,)", "(2,)")),
        (np.zeros(3, "f4"), TypeError, "dtype", ("float64", "float32")),
    ]:
        given = {**arrays, key: bad}
        with pytest.raises(error) as caught:
            fastadam.adam_step(**given, t=1)
        said(caught.value, f"state {key} has", *words, f"give one of that {what}", "zeros")
        assert "set the optimizer up" not in str(caught.value)
    assert all((array == 1).all() for array in arrays.values())


def test_state_that_shares_memory() -> None:
    opt = trained()
    rules = {path: opt.parameters[path].update_rule for path in ("a", "l1/b")}
    good = dict(rules["a"].state)
    for key, array, words in (
        ("m", good["v"], ("its v and its m", "its m and its v")),
        ("v", opt.target["a"], ("its array and its v",)),
        ("m", rules["l1/b"].state["v"], ("'a'", "'l1/b'", "its m", "the v of")),
    ):
        if array.shape != (3,):
            buffer = np.zeros(5)
            rules["l1/b"].state["v"], array = buffer[3:], buffer[2:]
        rules["a"].state[key] = array
        with pytest.raises(ValueError, match="share memory"):
            opt.apply_gradients(grads(2))
        rules["a"].state[key] = good[key]
        assert words
    assert (opt.t, rules["a"].t, rules["l1/b"].t) == (2, 2, 2)


def test_array_of_a_parameter_that_is_no_numpy_array() -> None:
    opt = trained_link()
    for bad, kind in ((Foreign(), "cupy.ndarray"), ([1.0, 2.0], "list")):
        with refused(opt, TypeError, "parameter 'b'", "numpy.ndarray", kind):
            opt.target.b.array = bad


def test_unknown_parameter() -> None:
    opt = trained()
    with refused(opt, KeyError, "'l1/w'", "'l1/W'", "'l1/b'"):
        _ = opt.parameters["l1/w"]


# -- gradients that are not finite ---------------------------------------------------------------

NONFINITE = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


@NONFINITE
def test_nonfinite_propagates(bad: float) -> None:
    opt = trained(adabound=False)
    before = everything(opt)["parameters"]
    opt.apply_gradients(replaced("l1/b", np.array([bad, 1.0])))
    b = opt.target["l1"]["b"]
    assert np.isnan(b[0])
    assert np.isfinite(b[1])
    state = opt.parameters["l1/b"].update_rule.state
    assert not np.isfinite([state[key][0] for key in ("m", "v", "vhat")]).any()
    assert np.isfinite([state[key][1] for key in ("m", "v", "vhat")]).all()
    twin = trained(adabound=False)
    twin.apply_gradients(grads(2))
    for path in ("a", "l1/W"):
        assert of_parameter(opt.parameters[path])[1:] == of_parameter(twin.parameters[path])[1:]
        assert of_parameter(opt.parameters[path]) != before[path]
    assert opt.last_update is not None
    assert opt.last_update.applied == ("a", "l1/W", "l1/b")


@NONFINITE
def test_nonfinite_is_skipped(bad: float) -> None:
    opt = trained()
    opt.on_nonfinite = "skip"
    events: list[int] = []
    opt.add_hook(lambda opt: events.append(opt.t), "before")
    opt.add_hook(lambda opt: events.append(opt.t), "after", "post")
    before = everything(opt)
    opt.apply_gradients(replaced("l1/b", np.array([bad, 1.0])))
    after = everything(opt)
    assert after["parameters"] == before["parameters"]
    assert (opt.t, opt.epoch, events) == (3, 1, [2, 3])
    report = opt.last_update
    assert report is not None
    assert (report.t, report.skipped, report.nonfinite, report.applied) == (3, True, ("l1/b",), ())


@NONFINITE
def test_nonfinite_raises(bad: float) -> None:
    opt = trained()
    opt.on_nonfinite = "raise"
    worse = replaced("l1/b", np.array([bad, 1.0]))
    with refused(opt, FloatingPointError, "'l1/b'", "not finite", "t = 2", "'skip'"):
        opt.apply_gradients(worse)
    worse["a"][1] = bad
    with refused(opt, FloatingPointError, "'a', 'l1/b'", "not finite"):
        opt.apply_gradients(worse)
    opt.on_nonfinite = "propagate"
    goes_on(opt)


@NONFINITE
def test_nonfinite_under_dynamic_scaling(bad: float) -> None:
    opt = trained()
    opt.loss_scaling(interval=2)
    opt._loss_scale = 64.0
    before = everything(opt)
    worse = replaced("l1/b", np.array([bad, 1.0]))
    with pytest.warns(UserWarning, match="not finite") as caught:
        opt.apply_gradients(worse, loss_scale=opt.loss_scale)
    assert len(caught) == 1
    text = str(caught[0].message)
    for word in ("'l1/b'", "not finite", "t = 2", "64.0", "skipped", "halved"):
        assert word in text
    assert everything(opt)["parameters"] == before["parameters"]
    assert (opt.t, opt.epoch, opt.loss_scale) == (3, 1, 32.0)
    assert opt.last_update is not None
    assert opt.last_update.skipped


# -- hyperparameters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "eps"),
    [("f2", 1e-46), ("f2", 1e-40), ("f4", 1e-46), ("f4", 1e-40), ("f8", "1e-400")],
)
def test_eps_that_underflows(dtype: str, eps: Any) -> None:
    value = np.longdouble(eps) if isinstance(eps, str) else eps
    if value == 0:
        pytest.skip("this machine's long double is a float64")
    opt = trained()
    opt.target["h"] = np.ones(3, dtype)
    opt.apply_gradients({**grads(2), "h": np.ones(3)})
    opt.eps = value
    smaller = "float64" if dtype == "f8" else "float32"
    with refused(opt, ValueError, "eps", str(eps), smaller, "act as 0"):
        opt.apply_gradients({**grads(3), "h": np.ones(3)})


def test_eps_that_is_small_enough() -> None:
    for dtype, eps in (("f2", 1e-8), ("f4", 1e-37), ("f8", 1e-300), ("f8", 5e-324), ("f2", 0)):
        w = np.ones(2, dtype)
        Adam(alpha=0.25, eps=eps).setup(w).apply_gradients(np.full(2, 0.5, dtype))
        np.testing.assert_allclose(w, 0.75, rtol=1e-3)


def test_alpha_of_zero() -> None:
    """Nothing moves but by weight decay; the moments go on."""
    opt = trained(weight_decay_rate=0, adabound=False)
    opt.alpha = 0
    before = everything(opt)["parameters"]
    opt.apply_gradients(grads(2))
    for path, param in opt.parameters.items():
        after = of_parameter(param)
        assert after[1] == before[path][1]
        assert all(after[2][key] != before[path][2][key] for key in ("m", "v"))
        assert after[3] == 3


def test_adabound_from_alpha_zero() -> None:
    opt = Adam(**{**NUMBERS, "alpha": 0, "weight_decay_rate": 0}).setup(tree())
    opt.apply_gradients(grads(0))
    np.testing.assert_array_equal(opt.target["a"], tree()["a"])
    opt.alpha = 0.25
    opt.apply_gradients(grads(1))
    assert (opt.target["a"] != tree()["a"]).all()
    assert np.isfinite(opt.target["a"]).all()
    assert opt.parameters["a"].update_rule.initial_alpha == 0.25


def test_gamma_of_zero() -> None:
    opt, twin = trained(gamma=0), trained(adabound=False)
    for path, param in twin.parameters.items():
        assert of_parameter(opt.parameters[path])[1:4] == of_parameter(param)[1:4]
    assert opt.parameters["a"].update_rule.bounds == (0.0, np.inf)


def may_not_be() -> Iterator[tuple[str, Any, type[Exception], tuple[str, ...]]]:
    """A hyperparameter, a value that it may not have, what comes, and words of the message."""
    yield from [
        ("alpha", np.nan, ValueError, ("nan",)),
        ("alpha", np.inf, ValueError, ("inf",)),
        ("beta1", 1.5, ValueError, ("1.5",)),
        ("beta1", -0.5, ValueError, ("-0.5",)),
        ("beta1", 1, ValueError, ("not 1", "below 1")),
        ("beta2", -1e-9, ValueError, ("-1e-09",)),
        ("beta2", 9.99, ValueError, ("not 9.99", "at most 1")),
        ("eps", -1e-8, ValueError, ("-1e-08",)),
        ("eta", -np.inf, ValueError, ("-inf",)),
        ("weight_decay_rate", -1, ValueError, ("-1",)),
        ("final_lr", -0.1, ValueError, ("-0.1",)),
        ("gamma", -2, ValueError, ("-2",)),
        ("eps_mode", "torch", ValueError, ("'torch'", "one of", "'paper'")),
        ("decay_mode", "torch", ValueError, ("'torch'", "one of", "'alpha'")),
    ]
    for name in NUMBERS:
        if name in ("amsgrad", "adabound"):
            for bad in ("yes", None, [True, False]):
                yield name, bad, TypeError, ("True or False", type(bad).__name__)
        else:
            for bad in ("big", None, [0.1, 0.2], 1j):
                yield name, bad, TypeError, ("number", type(bad).__name__)


def test_hyperparameter_that_may_not_be(case: Callable[..., Any]) -> None:
    for name, bad, error, words in may_not_be():
        with case(name=name, bad=bad):
            words = (f"{name} must be", *words)
            with pytest.raises(error) as caught:
                Adam(**{name: bad})
            said(caught.value, "Adam", *words)
            opt = trained()
            bag = opt.parameters["a"].update_rule.hyperparam
            good = {"eta": 0.5, name: bad} if name != "eta" else {"eps": 0.5, name: bad}
            with refused(opt, error, *words):
                setattr(opt, name, bad)
            with refused(opt, error, *words):
                opt.set_hyperparam("l1/*", **good)
            with refused(opt, error, *words):
                setattr(bag, name, bad)
            usual = getattr(opt, name)
            vars(opt.hyperparam)[name] = bad
            with refused(opt, error, "'a'", *words):
                opt.apply_gradients(grads(2))
            setattr(opt, name, usual)
            goes_on(opt)


def test_beta2_of_one() -> None:
    """alpha_t is 0: the parameters do not move, and v stays."""
    opt = trained(weight_decay_rate=0, adabound=False)
    opt.beta2 = 1
    before = everything(opt)["parameters"]
    opt.apply_gradients(grads(2))
    for path, param in opt.parameters.items():
        after = of_parameter(param)
        assert after[1] == before[path][1]
        assert after[2]["v"] == before[path][2]["v"]
        assert after[2]["m"] != before[path][2]["m"]
        assert after[3] == 3


def test_beta2_of_one_with_eps_of_the_paper() -> None:
    opt = trained(eps_mode="paper")
    opt.beta2 = 1
    with refused(opt, ZeroDivisionError, "beta2 = 1", "t = 3", "'paper'", "below 1"):
        opt.apply_gradients(grads(2))
    opt.beta2 = NUMBERS["beta2"]
    goes_on(opt, eps_mode="paper")


def test_weight_decay_above_one() -> None:
    opt = trained()
    with refused(opt, ValueError, "weight_decay_rate", "at most 1", "decay_mode='alpha'"):
        opt.weight_decay_rate = 1.5
    opt.eta = 16
    with refused(opt, ValueError, "weight_decay_rate", "eta = 16", "parameter 'a'"):
        opt.apply_gradients(grads(2))
    opt.eta = NUMBERS["eta"]
    goes_on(opt)


def test_numbers_too_large_for_float32() -> None:
    opt = trained(weight_decay_rate=0)
    for name in ("alpha", "eta", "eps"):
        setattr(opt, name, 1e200)
        with refused(opt, ValueError, "parameter 'l1/W'", name, "float32", "infinite"):
            opt.apply_gradients(grads(2))
        setattr(opt, name, NUMBERS[name])
    goes_on(opt, weight_decay_rate=0)


def test_parameters_in_the_place_of_alpha() -> None:
    with pytest.raises(TypeError) as caught:
        Adam(tree())
    said(caught.value, "alpha", "dict", "setup(params)")


def test_weight_decay_like_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decay_advice, "_warned", False)
    with pytest.warns(UserWarning, match="decay_mode='alpha'"):
        fastadam.AdamW(alpha=0.001, weight_decay_rate=0.01)
    fastadam.AdamW(alpha=0.001, weight_decay_rate=0.01)


def test_set_hyperparam_that_matches_nothing() -> None:
    opt = trained()
    for which in ("l1/w", "*/w", "", lambda path, param: False):
        with refused(opt, ValueError, "no parameter matches", "'a', 'l1/W', 'l1/b'"):
            opt.set_hyperparam(which, alpha=0.5)
    with refused(opt, TypeError, "glob", "int"):
        opt.set_hyperparam(3, alpha=0.5)  # type: ignore[arg-type]
    goes_on(opt)


def test_set_hyperparam_of_an_unknown_name() -> None:
    opt = trained()
    for name in ("lr", "aplha", "initial_alpha"):
        with refused(opt, TypeError, "Adam", f"hyperparameter {name!r}", "alpha, beta1"):
            opt.set_hyperparam("*", **{"beta1": 0.5, name: 0.5})
    with refused(opt, TypeError, "name=value"):
        opt.set_hyperparam("*")
    goes_on(opt)


@pytest.mark.parametrize("given", [("l1/b", 0.1), ({"l1/b": 0.1},), ("l1/b",), (0.1, 0.2, 0.3)])
def test_set_hyperparam_without_a_name(given: tuple[Any, ...]) -> None:
    opt = trained()
    glob = "l1/b" if given[0] == "l1/b" else "*/b"
    with refused(opt, TypeError, f"set_hyperparam({glob!r}, alpha=0.1)", "name=value"):
        opt.set_hyperparam(*given)
    goes_on(opt)


def test_set_hyperparam_without_a_rule() -> None:
    opt = trained()
    opt.parameters["l1/b"].update_rule = None
    with refused(opt, ValueError, "parameter 'l1/b'", "no update rule"):
        opt.set_hyperparam("*", alpha=0.5)


# -- names of other libraries --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("lr", "alpha"),
        ("learning_rate", "alpha"),
        ("betas", "beta1 and beta2"),
        ("b1", "beta1 and beta2"),
        ("weight_decay", "weight_decay_rate=1e-5"),
        ("epsilon", "eps"),
        ("params", "setup(params)"),
        ("clipnorm", "GradientClipping"),
        ("maximize", "alpha below 0"),
    ],
)
def test_arguments_of_other_libraries(name: str, word: str) -> None:
    for kind in (Adam, fastadam.AdamW, fastadam.AMSGrad, fastadam.AdaBound, fastadam.AMSBound):
        with pytest.raises(TypeError) as caught:
            kind(**{name: 0.5})
        said(caught.value, kind.__name__, repr(name), word)


@pytest.mark.parametrize("name", ["on_nonfinite", "monitor", "loss_scale"])
def test_settings_as_arguments(name: str) -> None:
    for kind in (Adam, fastadam.AdamW, fastadam.AMSGrad, fastadam.AdaBound, fastadam.AMSBound):
        with pytest.raises(TypeError) as caught:
            kind(**{name: "skip"})
        said(caught.value, kind.__name__, repr(name), "attribute", f"opt.{name} = ")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("step", "apply_gradients(gradients)"),
        ("zero_grad", "clears the gradients itself"),
        ("minimize", "setup(params)"),
        ("param_groups", "set_hyperparam"),
        ("state_dict", "save_npz"),
        ("load_state_dict", "load_npz"),
        ("save", "fastadam.save(path, optimizer)"),
        ("load", "fastadam.load(path, optimizer)"),
        ("weight_decay", "weight_decay_rate"),
        ("nonsense", "no attribute"),
    ],
)
def test_attributes_of_other_libraries(name: str, word: str) -> None:
    opt = trained()
    with refused(opt, AttributeError, "Adam", repr(name), word):
        getattr(opt, name)


def test_misspelt_hyperparameter() -> None:
    opt = trained()
    for name, meant in [("aplha", "'alpha'"), ("beta_2", "beta2"), ("weight_decay", "_rate")]:
        with refused(opt, AttributeError, "Adam", repr(name), meant):
            setattr(opt, name, 0.5)
        with refused(opt, AttributeError, "Adam", repr(name), meant):
            setattr(opt.hyperparam, name, 0.5)
        with refused(opt, AttributeError, "AdamRule", repr(name), meant):
            setattr(opt.parameters["a"].update_rule.hyperparam, name, 0.5)
        with pytest.raises(TypeError) as caught:
            Adam(**{name: 0.5})
        said(caught.value, "Adam", repr(name), meant)
    goes_on(opt)


def test_lr_cannot_be_set() -> None:
    opt = trained()
    with refused(opt, AttributeError, "Adam.lr", "set alpha"):
        opt.lr = 0.5  # type: ignore[misc]
    with pytest.warns(DeprecationWarning, match="alpha_t"):
        assert opt.lr == opt.alpha_t
    goes_on(opt)


def test_optimizers_that_are_not_here() -> None:
    for name in ("SGD", "MomentumSGD", "RMSprop", "AdaGrad"):
        with pytest.raises(AttributeError) as caught:
            getattr(fastadam.optimizers, name)
        said(caught.value, name, "Adam family", "GradientMethod")
        with pytest.raises(AttributeError) as caught:
            getattr(fastadam, name)
        said(caught.value, name, "Adam family", "GradientMethod")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("GradientClipping", "fastadam.optimizer_hooks.GradientClipping"),
        ("WeightDecay", "fastadam.optimizer_hooks.WeightDecay"),
        ("save_npz", "fastadam.serializers.save_npz"),
        ("clip_grad_norm_", "opt.add_hook(optimizer_hooks.GradientClipping(1.0))"),
        ("clip_grad_value_", "opt.add_hook(optimizer_hooks.GradientHardClipping(-0.5, 0.5))"),
    ],
)
def test_names_that_are_elsewhere(name: str, word: str) -> None:
    for module in (fastadam, fastadam.optimizers):
        with pytest.raises(AttributeError) as caught:
            getattr(module, name)
        said(caught.value, repr(name), word)


# -- adding hooks --------------------------------------------------------------------------------


def owners(opt: Adam) -> list[Any]:
    """Whatever has hooks: the optimizer and a rule."""
    return [opt, opt.parameters["l1/b"].update_rule]


class Nameless:
    """A hook without a name."""

    def __call__(self, *args: Any) -> None:
        """Do nothing."""


def test_hook_that_cannot_be_called() -> None:
    opt = trained()
    for owner in owners(opt):
        for bad in ("WeightDecay", 0.5, None):
            with refused(opt, TypeError, "hook", "callable", repr(bad)):
                owner.add_hook(bad, "hook")
    goes_on(opt)


def test_hook_without_a_name() -> None:
    opt = trained()
    for owner in owners(opt):
        with refused(opt, ValueError, "Nameless", "'name'", "pass name="):
            owner.add_hook(Nameless())
    goes_on(opt)


def test_timing_that_does_not_exist() -> None:
    opt = trained()
    for owner in owners(opt):
        for bad in ("before", "", None):
            with refused(opt, ValueError, "timing", "'pre', 'post' or 'auto'", repr(bad)):
                owner.add_hook(Nameless(), "hook", bad)
    with refused(opt, ValueError, "timing", "'pre' or 'post'", "'auto'"):
        opt.call_hooks("auto")
    goes_on(opt)


def test_hook_with_a_timing_that_does_not_exist() -> None:
    opt = trained()
    hook = Nameless()
    hook.timing = "before"  # type: ignore[attr-defined]
    for owner in owners(opt):
        with pytest.warns(UserWarning, match=r"Nameless.*'before'.*'pre'"):
            owner.add_hook(hook, "odd")
        assert ("pre", "odd", hook) in list(owner._hooks)


def test_hook_named_like_a_timing() -> None:
    opt = trained()
    for owner in owners(opt):
        for name in ("pre", "post"):
            with pytest.warns(UserWarning, match=f"named '{name}'.*timing='{name}'") as caught:
                owner.add_hook(Nameless(), name)
            assert caught[0].filename == __file__
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                owner.remove_hook(name)
                owner.add_hook(Nameless(), name, timing=name)


def test_hook_of_optimizers_for_a_rule() -> None:
    class Own(GradientClipping):
        """May take what it likes."""

    opt = trained()
    rule = opt.parameters["l1/b"].update_rule
    for kind in (GradientClipping, ours.GradientClipping):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            hook = kind(1.0)
        with refused(opt, TypeError, "GradientClipping", "opt.add_hook"):
            rule.add_hook(hook)
        opt.add_hook(hook)
        opt.remove_hook("GradientClipping")
    goes_on(opt)
    rule.add_hook(Own(1.0))


def test_name_that_is_taken() -> None:
    opt = trained()
    opt.parameters["l1/b"].update_rule.add_hook(Nameless(), "first")
    for owner in owners(opt):
        for timing in ("pre", "post"):
            with refused(opt, KeyError, "'first'", "another name="):
                owner.add_hook(Nameless(), "first", timing)


def test_unknown_hook_is_removed() -> None:
    opt = trained()
    with refused(opt, KeyError, "'hook'", "'first', 'last'"):
        opt.remove_hook("hook")
    with refused(opt, KeyError, "'first'", "none"):
        opt.parameters["l1/b"].update_rule.remove_hook("first")
    goes_on(opt)


# -- something raises on the way -----------------------------------------------------------------

ANY = pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])


def failing(error: type[BaseException], at: str | None = None, each: bool = False) -> Any:
    """A function that raises, for one parameter or at every call."""

    def fail(*args: Any) -> None:
        if at is None or args[1].name == at:
            raise error("on the way")

    fail.call_for_each_param = each  # type: ignore[attr-defined]
    return fail


def wholly_before_or_after(opt: Adam, before: dict[str, Any], applied: tuple[str, ...]) -> None:
    """Check each parameter, the counts and the report, `applied` being those that were stepped."""
    done = trained()
    done.apply_gradients(grads(2))
    for path, param in opt.parameters.items():
        now = of_parameter(param)
        if path in applied:
            assert now[1:4] == of_parameter(done.parameters[path])[1:4]
        else:
            assert now[:4] == before["parameters"][path][:4]
    assert opt.epoch == 1
    assert opt.t == (3 if applied else 2)
    if applied:
        assert opt.last_update is not None
        assert (opt.last_update.t, opt.last_update.applied) == (3, applied)
        assert not opt.last_update.skipped
    else:
        assert opt.last_update == before["t"][2]


@ANY
def test_loss_function_raises(error: type[BaseException]) -> None:
    opt = trained()

    def lossfun(x: int) -> None:
        raise error(f"in the loss of {x}")

    with refused(opt, error, "in the loss of 3"):
        opt.update(lossfun, 3)
    goes_on(opt)


@ANY
def test_backward_raises(error: type[BaseException]) -> None:
    opt = trained_link()

    def backward(loss_scale: Any) -> None:
        opt.target.W.grad = np.zeros((2, 3), "f4")
        raise error("on the way")

    with refused(opt, error, "on the way", gradients=False):
        opt.update(lambda: types.SimpleNamespace(backward=backward))


@ANY
@pytest.mark.parametrize("each", [False, True])
def test_pre_hook_raises(error: type[BaseException], each: bool) -> None:
    opt = trained()
    opt.add_hook(failing(error, "l1/b" if each else None, each))
    with refused(opt, error, "on the way"):
        opt.apply_gradients(grads(2))
    opt.remove_hook("fail")
    goes_on(opt)


@ANY
@pytest.mark.parametrize(
    ("hooked", "at", "applied"),
    [
        (("l1/b",), "l1/b", ("a", "l1/W")),
        (("a", "l1/W", "l1/b"), "l1/W", ("a",)),
        (("a", "l1/W", "l1/b"), "a", ()),
    ],
)
def test_rule_pre_hook_raises(
    error: type[BaseException], hooked: tuple[str, ...], at: str, applied: tuple[str, ...]
) -> None:
    opt = trained()
    for path in hooked:
        opt.parameters[path].update_rule.add_hook(failing(error, at))
    before = everything(opt)
    with pytest.raises(error, match="on the way"):
        opt.apply_gradients(grads(2))
    wholly_before_or_after(opt, before, applied)


class Refusing(fastadam.AdamRule):
    """A rule that cannot update one of the parameters."""

    error: type[BaseException] = RuntimeError

    def update_core(self, param: Any) -> None:
        """Raise for l1/W before anything is done."""
        if param.name == "l1/W":
            raise self.error("on the way")
        super().update_core(param)


@pytest.mark.parametrize("first", [False, True])
def test_update_core_raises(first: bool) -> None:
    opt = trained()
    for path in ("l1/W",) if first else ("a", "l1/W", "l1/b"):
        param = opt.parameters[path]
        rule = Refusing(opt.hyperparam)
        rule.__dict__.update({**param.update_rule.__dict__, "hyperparam": rule.hyperparam})
        param.update_rule = rule
    before = everything(opt)
    with pytest.raises(RuntimeError, match="on the way"):
        opt.apply_gradients(grads(2))
    wholly_before_or_after(opt, before, ("a", "l1/b") if first else ("a",))


@ANY
@pytest.mark.parametrize(
    ("hooked", "at", "applied"),
    [
        (("l1/b",), "l1/b", ("a", "l1/W", "l1/b")),
        (("a", "l1/W", "l1/b"), "l1/W", ("a", "l1/W")),
        (("a", "l1/W", "l1/b"), "a", ("a",)),
    ],
)
def test_rule_post_hook_raises(
    error: type[BaseException], hooked: tuple[str, ...], at: str, applied: tuple[str, ...]
) -> None:
    opt = trained()
    for path in hooked:
        opt.parameters[path].update_rule.add_hook(failing(error, at), timing="post")
    before = everything(opt)
    with pytest.raises(error, match="on the way"):
        opt.apply_gradients(grads(2))
    wholly_before_or_after(opt, before, applied)


@ANY
@pytest.mark.parametrize("each", [False, True])
def test_post_hook_raises(error: type[BaseException], each: bool) -> None:
    opt = trained()
    opt.add_hook(failing(error, "l1/W" if each else None, each), timing="post")
    before = everything(opt)
    with pytest.raises(error, match="on the way"):
        opt.apply_gradients(grads(2))
    wholly_before_or_after(opt, before, ("a", "l1/W", "l1/b"))


def test_rule_without_an_update() -> None:
    class Mine(GradientMethod):
        def create_update_rule(self) -> UpdateRule:
            return UpdateRule(self.hyperparam)

    opt = Mine().setup({"w": np.ones(2), "x": np.ones(2)})
    with refused(opt, NotImplementedError, "UpdateRule", "update_core"):
        opt.apply_gradients({"w": np.ones(2), "x": np.ones(2)})


def test_ctrl_c_while_parameters_are_updated() -> None:
    opt, pressed = trained(), []
    for path in ("a", "l1/W"):
        rule = opt.parameters[path].update_rule
        rule.add_hook(lambda rule, param: pressed.append(param.name), "first")
    rule = opt.parameters["a"].update_rule
    rule.add_hook(lambda rule, param: signal.raise_signal(signal.SIGINT), "second")
    before = everything(opt)
    opt.add_hook(lambda opt: pytest.fail("called"), "never", "post")
    with pytest.raises(KeyboardInterrupt):
        opt.apply_gradients(grads(2))
    assert pressed == ["a", "l1/W"]
    wholly_before_or_after(opt, before, ("a", "l1/W", "l1/b"))


def test_two_threads() -> None:
    opt = trained()
    inside, go_on = threading.Event(), threading.Event()

    def lossfun() -> Any:
        inside.set()
        assert go_on.wait(20)
        return 0.5, grads(2)

    first = threading.Thread(target=opt.update, args=(lossfun,))
    first.start()
    try:
        assert inside.wait(20)
        # looking at all of it is refused, too
        with pytest.raises(RuntimeError) as caught:
            opt.apply_gradients(grads(3))
        said(caught.value, "another thread", "this Adam", "Lock")
    finally:
        go_on.set()
        first.join(20)
    wholly_before_or_after(opt, {}, ("a", "l1/W", "l1/b"))


def test_a_look_in_the_middle_of_an_update() -> None:
    opt = trained()
    seen: list[str] = []

    def hook(rule: Any, param: Any) -> None:
        for look in (fastadam.snapshot, copy.deepcopy, lambda opt: opt == trained()):
            with pytest.raises(RuntimeError) as caught:
                look(opt)
            said(caught.value, "this Adam", "middle of an update", "'post' hook")
            seen.append(rule.path)

    opt.parameters["a"].update_rule.add_hook(hook, "look")
    opt.apply_gradients(grads(2))
    assert seen == ["a"] * 3


def test_a_hook_that_updates_again() -> None:
    opt = trained()
    opt.add_hook(lambda opt: opt.apply_gradients(grads(3)), "again")
    with refused(opt, RuntimeError, "this Adam", "hook", "update() has returned"):
        opt.apply_gradients(grads(2))


def test_a_state_that_was_cleared() -> None:
    opt = trained()
    state = opt.parameters["l1/W"].update_rule.state
    state.clear()
    with refused(opt, ValueError, "'l1/W'", "'m', 'v'"):
        opt.apply_gradients(grads(2))


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, -0.5, np.inf, np.nan])
def test_loss_scale_that_is_not_above_zero(bad: float) -> None:
    opt = trained()
    opt.loss_scaling(interval=3)
    words = ("loss scale", "finite number above 0", repr(bad))
    with refused(opt, ValueError, *words):
        opt.loss_scaling(scale=bad)
    with refused(opt, ValueError, *words):
        opt.set_loss_scale(bad)
    with refused(opt, ValueError, *words):
        opt.loss_scale = bad
    with refused(opt, ValueError, *words):
        opt.apply_gradients(grads(2), loss_scale=bad)
    opt.loss_scale = None
    goes_on(opt)


@pytest.mark.parametrize("bad", ["big", [2.0], 1j])
def test_loss_scale_that_is_no_number(bad: Any) -> None:
    opt = trained()
    words = ("loss scale", "number", repr(bad))
    with refused(opt, TypeError, *words):
        opt.loss_scaling(scale=bad)
    with refused(opt, TypeError, *words):
        opt.apply_gradients(grads(2), loss_scale=bad)
    with refused(opt, TypeError, "interval", "number", repr(bad)):
        opt.loss_scaling(interval=bad)
    for setting in (opt.set_loss_scale, lambda bad: setattr(opt, "loss_scale", bad)):
        with refused(opt, TypeError, "for dynamic scaling call loss_scaling()", "'dynamic'"):
            setting("dynamic")
    with refused(opt, TypeError, "loss_scaling()", "loss_scaling(scale=...)"):
        opt.loss_scaling("dynamic")  # type: ignore[arg-type]
    goes_on(opt)


@pytest.mark.parametrize(
    ("bad", "error"), [(-5, ValueError), (-1.5, ValueError), ("x", TypeError), (None, TypeError)]
)
def test_count_of_a_rule_that_is_none(bad: Any, error: type[Exception]) -> None:
    opt = trained()
    rule = opt.parameters["l1/b"].update_rule
    t, rule.t = rule.t, bad
    with refused(opt, error, "'l1/b'", "t is the number of updates", repr(bad)):
        opt.apply_gradients(grads(2))
    rule.t = t
    goes_on(opt)


@pytest.mark.parametrize("bad", ["no", "yes", "", 2, 0.5, [True], np.ones(2)])
def test_setting_that_is_no_truth_value(bad: Any, path: Path) -> None:
    opt = trained()
    rule = opt.parameters["l1/b"].update_rule
    doors: dict[str, Callable[[], Any]] = {
        "enabled": lambda: setattr(rule, "enabled", bad),
        "monitor": lambda: setattr(opt, "monitor", bad),
        "flag": lambda: opt.use_fp32_update(bad),
        "use_fp32_update": lambda: rule.use_fp32_update(bad),
        "compression": lambda: fastadam.save(path, opt, compression=bad),
        "parameters": lambda: fastadam.save(path, opt, parameters=bad),
        "strict": lambda: fastadam.load(path, opt, strict=bad),
    }
    for name, door in doors.items():
        with refused(opt, TypeError, name, "True or False", type(bad).__name__):
            door()
    assert not path.exists()
    for good in (True, 1, np.True_, np.ones(()), False, 0, None):
        rule.enabled = opt.monitor = good
        assert (rule.enabled, opt.monitor) == (good, good)
        opt.use_fp32_update(good)
    rule.enabled = True
    goes_on(opt)


@pytest.mark.parametrize("bad", [0, 0.5, -3, np.nan])
def test_interval_below_one(bad: float) -> None:
    opt = trained()
    opt.set_loss_scale(8.0)
    with refused(opt, ValueError, "interval", "at least 1", repr(bad)):
        opt.loss_scaling(interval=bad)  # type: ignore[arg-type]
    opt.loss_scale = None
    goes_on(opt)


def test_unknown_missing_gradients() -> None:
    opt = trained()
    for bad in ("ignore", None, True):
        with refused(opt, ValueError, "missing_gradients", "'zeros', 'skip'", repr(bad)):
            opt.missing_gradients = bad  # type: ignore[assignment]
    goes_on(opt)


def test_unknown_on_nonfinite() -> None:
    opt = trained()
    for bad in ("ignore", None, True):
        with refused(opt, ValueError, "on_nonfinite", "'propagate', 'skip', 'raise'", repr(bad)):
            opt.on_nonfinite = bad  # type: ignore[assignment]
    goes_on(opt)


# -- epochs --------------------------------------------------------------------------------------


def test_new_epoch_of_a_trainer_that_did_not_say_so() -> None:
    opt = trained()
    with refused(opt, RuntimeError, "auto=True", "use_auto_new_epoch = True"):
        opt.new_epoch(auto=True)
    goes_on(opt)


def test_new_epoch_beside_a_trainer() -> None:
    opt = trained()
    opt.use_auto_new_epoch = True
    with refused(opt, RuntimeError, "use_auto_new_epoch", "drop the call"):
        opt.new_epoch()
    opt.new_epoch(auto=True)
    assert opt.epoch == 2


# -- files ---------------------------------------------------------------------------------------


def saved(**changes: Any) -> dict[str, Any]:
    """What a file of an optimizer holds, with changes; a value of None takes a key away."""
    found = {**{key: np.array(value) for key, value in serialize(trained()).items()}, **changes}
    return {key: value for key, value in found.items() if value is not None}


def npz(values: dict[str, Any]) -> bytes:
    """Return a file of these values."""
    file = io.BytesIO()
    fastadam.serializers.save_npz(file, values)
    return file.getvalue()


def load(content: bytes, opt: Any) -> None:
    """Load a file."""
    fastadam.serializers.load_npz(io.BytesIO(content), opt)


@pytest.mark.parametrize("key", ["t", "a/m", "l1/b/vhat", "l1/W/t"])
def test_file_without_a_key(key: str) -> None:
    opt = trained()
    with refused(opt, KeyError, repr(key)):
        load(npz(saved(**{key: None})), opt)
    goes_on(opt)


@pytest.mark.parametrize("key", ["t", "a/m", "l1/b"])
def test_hdf5_file_without_a_key(key: str) -> None:
    h5py = pytest.importorskip("h5py")
    opt, file = trained(), io.BytesIO()
    fastadam.serializers.save_hdf5(file, opt)
    file.seek(0)
    with h5py.File(file, "r+") as content:
        del content[key]
        content.attrs.clear()  # the digest of all keys, which comes before them
    file.seek(0)
    error = ValueError if key == "l1/b" else KeyError
    with refused(opt, error, repr(key)):
        fastadam.serializers.load_hdf5(file, opt)
    goes_on(opt)


@pytest.mark.parametrize("what", ["optimizer", "link"])
def test_file_of_another_function(path: Path, what: str) -> None:
    opt = trained()
    fastadam.save(path, opt)
    load_file = getattr(fastadam.serializers, f"load_{'npz' if path.suffix == '.npz' else 'hdf5'}")
    obj = opt if what == "optimizer" else Link(l1=2)
    with refused(opt, KeyError, "fastadam.load", "path='optimizer/'", "path='target/'"):
        load_file(path, obj)
    load_file(path, opt, path="optimizer/")
    goes_on(opt)


def test_file_of_groups(path: Path) -> None:
    opt = trained()
    fastadam.save(path, opt)
    sealed(path, {"fastadam/group/0/lr": 0.1})
    with refused(opt, fastadam.CheckpointError, "whose parameters are in groups", "fastadam.torch"):
        fastadam.load(path, opt)
    goes_on(opt)


def test_file_object_for_save() -> None:
    opt = trained()
    for function in (fastadam.save, fastadam.load):
        with refused(opt, TypeError, "BytesIO", "_npz(file, optimizer)"):
            function(io.BytesIO(), opt)  # type: ignore[operator]
        with refused(opt, TypeError, "name of a file", "int"):
            function(5, opt)  # type: ignore[operator]
    goes_on(opt)


def test_nested_values_for_a_file() -> None:
    for save_file in (fastadam.serializers.save_npz, fastadam.serializers.save_hdf5):
        file = io.BytesIO()
        if save_file is fastadam.serializers.save_hdf5:
            pytest.importorskip("h5py")
        with pytest.raises(TypeError) as caught:
            save_file(file, {"a": {"b": np.ones(2)}})
        said(caught.value, "'a'", "dict", "'a/b'")
        with pytest.raises(ValueError, match=r"'a'.*list") as refusal:
            save_file(file, {"a": [np.ones(2), np.ones(3)]})
        said(refusal.value, "'a/0'")
        assert file.getvalue() == b""


def test_file_of_another_shape() -> None:
    opt = trained()
    with refused(opt, ValueError, "'a/m'", "(3,)", "(4,)"):
        load(npz(saved(**{"a/m": np.ones(4)})), opt)
    with refused(opt, TypeError, "'l1/W/v'", "complex128", "float32"):
        load(npz(saved(**{"l1/W/v": np.ones((2, 2), complex)})), opt)
    goes_on(opt)


def test_file_that_is_no_npz_file(tmp_path: Path) -> None:
    opt, path = trained(), tmp_path / "optimizer.npz"
    for content, error in [
        (b"", EOFError),
        (b"nonsense", ValueError),
        (npz(saved())[:-30], zipfile.BadZipFile),
    ]:
        path.write_bytes(content)
        with refused(opt, error, "optimizer.npz"):
            fastadam.serializers.load_npz(path, opt)
    goes_on(opt)


def test_file_that_was_changed() -> None:
    h5py = pytest.importorskip("h5py")
    opt, file = trained(), io.BytesIO()
    fastadam.serializers.save_hdf5(file, opt)
    file.seek(0)
    with h5py.File(file, "r+") as content:
        content["l1/b/m"][0] += 1
    file.seek(0)
    with refused(opt, ValueError, "'l1/b/m'", "damaged"):
        fastadam.serializers.load_hdf5(file, opt)
    goes_on(opt)


# -- the page ------------------------------------------------------------------------------------


def test_table_and_tests_agree() -> None:
    named = re.findall(r"``(test_\w+)``", PAGE.read_text(encoding="utf-8"))
    there = [
        node.name
        for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    there.remove("test_table_and_tests_agree")
    # a test of several rows stands where the first of them does
    once = list(dict.fromkeys(named))
    assert once == there, "the rows of the page are the tests of this file, in the same order"
    text = PAGE.read_text(encoding="utf-8")
    rows = text.count("\n   * - ") - text.count("\n   * - What was done\n")
    assert rows == len(named), "a row without a test, or with two"
