from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastadam.model.parameter import Parameter


class Ramp:
    """An initializer with a dtype of its own."""

    dtype = np.float64

    def __call__(self, array):
        array[...] = np.arange(array.size).reshape(array.shape)


class CountingRule:
    """An update rule that records what it was called with."""

    def __init__(self):
        self.updated = []

    def update(self, param):
        self.updated.append(param)


def test_array_is_adopted_without_a_copy():
    array = np.ones((2, 3))
    param = Parameter(array, name="W")
    assert param.array is array
    assert param.data is array
    assert param.grad is None
    assert (param.shape, param.ndim, param.size, param.dtype) == ((2, 3), 2, 6, np.float64)
    assert param.is_initialized
    assert param.name == "W"
    assert param.update_rule is None
    assert param._loss_scale is None
    assert param.xp is np


@pytest.mark.parametrize(
    ("initializer", "expected"),
    [
        (None, np.full((2, 2), np.nan, np.float32)),
        (3, np.full((2, 2), 3, np.float32)),
        (np.float64(0.5), np.full((2, 2), 0.5, np.float32)),
        (np.array([1.0, 2.0]), np.array([[1, 2], [1, 2]], np.float32)),
        (Ramp(), np.arange(4.0).reshape(2, 2)),
        (lambda array: array.fill(7), np.full((2, 2), 7, np.float32)),
    ],
)
def test_shape_given_fills_array_and_nan_gradient(initializer, expected):
    param = Parameter(initializer, (2, 2))
    assert param.dtype == expected.dtype
    np.testing.assert_array_equal(param.array, expected)
    assert param.grad.dtype == expected.dtype
    assert param.grad.shape == (2, 2)
    assert np.isnan(param.grad).all()


def test_shape_may_be_an_integer_or_empty():
    assert Parameter(0, 4).shape == (4,)
    assert Parameter(0, ()).shape == ()
    assert Parameter(0, (0, 3)).shape == (0, 3)


def test_integer_parameter_has_no_nan_gradient():
    class Integers:
        dtype = np.int32

        def __call__(self, array):
            array.fill(1)

    assert Parameter(Integers(), 2).grad is None


@pytest.mark.parametrize("initializer", [[1, 2], "x", {}])
def test_impossible_initializer_is_refused(initializer):
    with pytest.raises(TypeError, match=f"'W'.*not {type(initializer).__name__}"):
        Parameter(initializer, name="W")


def test_uninitialised_parameter():
    param = Parameter(name="W")
    assert not param.is_initialized
    assert param.array is None
    assert repr(param) == "Parameter('W', uninitialised)"
    for attribute in ("shape", "ndim", "size"):
        with pytest.raises(AttributeError, match=f"'W' is uninitialised and has no {attribute}"):
            getattr(param, attribute)
    with pytest.raises(RuntimeError, match=r"'W' is uninitialised.*cleargrad"):
        _ = param.grad


def test_dtype_of_an_uninitialised_parameter_is_its_initializers():
    assert Parameter(Ramp()).dtype == np.float64
    assert Parameter().dtype == np.float64
    with pytest.raises(RuntimeError, match="no dtype attribute"):
        _ = Parameter(lambda array: None).dtype


def zero_grad(param):
    with pytest.warns(DeprecationWarning, match="cleargrad"):
        param.zerograd()


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda param: None, np.full(3, np.nan, np.float32)),
        (lambda param: param.cleargrad(), None),
        (lambda param: setattr(param, "grad", None), None),
        (zero_grad, np.zeros(3, np.float32)),
    ],
    ids=["untouched", "cleared", "set to None", "zeroed"],
)
def test_gradient_after_initialize(prepare, expected):
    param = Parameter(2)
    prepare(param)
    param.initialize(3)
    np.testing.assert_array_equal(param.array, np.full(3, 2, np.float32))
    if expected is None:
        assert param.grad is None
    else:
        np.testing.assert_array_equal(param.grad, expected)
        assert param.grad.dtype == np.float32


def test_cleared_uninitialised_parameter_has_no_gradient():
    param = Parameter()
    param.cleargrad()
    assert param.grad is None


def test_initialize_again_fills_a_new_array():
    param = Parameter(5, 3)
    old = param.array
    old[...] = 1
    param.initialize(param.shape)
    assert param.array is not old
    np.testing.assert_array_equal(param.array, np.full(3, 5, np.float32))


def test_parameter_made_from_an_array_cannot_be_initialised_again():
    param = Parameter(np.ones(2), name="W")
    with pytest.raises(TypeError, match="'W' was made from an array"):
        param.initialize(2)
    np.testing.assert_array_equal(param.array, np.ones(2))


def test_array_setter():
    param = Parameter(np.ones(2), name="W")
    new = np.zeros(3)
    param.array = new
    assert param.array is new
    param.data = None
    assert param.array is None
    with pytest.raises(TypeError, match=r"'W' must be a numpy.ndarray or None, not list"):
        param.array = [1.0]


def test_grad_setter_keeps_the_array():
    param = Parameter(np.ones(2))
    grad = np.zeros(2)
    param.grad = grad
    assert param.grad is grad
    param.grad = None
    assert param.grad is None


def test_grad_setter_takes_numpy_scalars_for_0_dim():
    param = Parameter(np.array(1.0))
    param.grad = np.array(2.0) * 3
    assert isinstance(param.grad, np.ndarray)
    assert param.grad == 6.0


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (1.0, TypeError, "not float"),
        ([1.0, 2.0], TypeError, "not list"),
        (np.ones(2, np.float32), TypeError, r"dtype float32.*float64.*astype\('float64'\)"),
        (np.ones(3), ValueError, r"shape \(3,\).*\(2,\)"),
        (np.ones((1, 2)), ValueError, r"shape \(1, 2\).*\(2,\)"),
        (np.float64(1), ValueError, r"shape \(\).*\(2,\)"),
    ],
)
def test_grad_setter_refuses(grad, error, message):
    param = Parameter(np.ones(2), name="W")
    kept = np.zeros(2)
    param.grad = kept
    with pytest.raises(error, match=f"'W'.*{message}"):
        param.grad = grad
    assert param.grad is kept


def test_uninitialised_parameter_takes_no_gradient():
    param = Parameter(name="W")
    with pytest.raises(RuntimeError, match="'W' is uninitialised"):
        param.grad = np.ones(2)
    with pytest.raises(RuntimeError, match="'W' is uninitialised"):
        param.lend_grad(np.ones(2))


def test_lent_gradient_is_kept_as_it_is_until_read():
    param = Parameter(np.zeros(3, np.float32))
    lent = np.array([1.0, 2.0, 3.0])
    lent.flags.writeable = False
    param.lend_grad(lent)
    assert param._grad is lent
    assert param._grad_borrowed
    own = param.grad
    assert own is not lent
    assert own.dtype == np.float32
    assert not param._grad_borrowed
    own *= 2
    assert param.grad is own
    np.testing.assert_array_equal(own, np.array([2, 4, 6], np.float32))
    np.testing.assert_array_equal(lent, [1, 2, 3])


def test_private_copy_has_the_parameters_memory_layout():
    param = Parameter(np.zeros((2, 3), np.float32, order="F"))
    param.lend_grad(np.broadcast_to(np.arange(3.0), (2, 3)))
    assert param.grad.flags.f_contiguous
    assert not param.grad.flags.c_contiguous
    np.testing.assert_array_equal(param.grad, [[0, 1, 2], [0, 1, 2]])


@pytest.mark.parametrize(
    ("array", "lent"),
    [
        (np.zeros(()), np.float32(2)),
        (np.zeros(()), 2.0),
        (np.zeros(2), [2.0, 2.0]),
        (np.zeros(2), np.full(2, 2, np.float16)),
        (np.zeros(2), np.full(2, 2, ">f8")),
        (np.zeros(2), np.full(2, 2, np.longdouble)),
        (np.zeros((2, 3)), np.broadcast_to(np.float64(2), (2, 3))),
    ],
)
def test_lend_grad_takes_everything_real(array, lent):
    param = Parameter(array)
    param.lend_grad(lent)
    assert param.grad.dtype == np.float64
    np.testing.assert_array_equal(param.grad, np.full(array.shape, 2.0))
    param.grad += 1
    np.testing.assert_array_equal(param.grad, np.full(array.shape, 3.0))


def test_lend_grad_takes_other_libraries_arrays():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return np.array([1.0, 2.0], np.float32)

    param = Parameter(np.zeros(2))
    param.lend_grad(Foreign())
    np.testing.assert_array_equal(param.grad, [1.0, 2.0])


@pytest.mark.parametrize(
    ("lent", "error", "message"),
    [
        (np.ones(2, bool), TypeError, "dtype bool"),
        (np.ones(2, np.int64), TypeError, "dtype int64"),
        (np.ones(2, complex), TypeError, "dtype complex128"),
        (None, TypeError, r"array of shape \(2,\), like the parameter, not NoneType"),
        ({"x": 1.0}, TypeError, r"array of shape \(2,\), like the parameter, not dict"),
        ([[1.0], [1.0, 2.0]], TypeError, "cannot be made an array"),
        (np.ones(3), ValueError, r"shape \(3,\).*\(2,\)"),
        (np.ones(1), ValueError, r"shape \(1,\).*\(2,\)"),
        (1.0, ValueError, r"shape \(\).*\(2,\)"),
    ],
)
def test_lend_grad_refuses(lent, error, message):
    param = Parameter(np.zeros(2), name="W")
    with pytest.raises(error, match=f"'W'.*{message}"):
        param.lend_grad(lent)
    assert param.grad is None


def test_cleargrad_and_grad_setter_end_a_loan():
    lent = np.ones(2)
    param = Parameter(np.zeros(2))
    param.lend_grad(lent)
    param.cleargrad()
    assert param.grad is None
    assert not param._grad_borrowed
    param.lend_grad(lent)
    mine = np.zeros(2)
    param.grad = mine
    assert param.grad is mine


def test_zerograd_warns_and_fills_in_place():
    param = Parameter(np.ones(2))
    with pytest.warns(DeprecationWarning, match="cleargrad"):
        param.zerograd()
    grad = param.grad
    np.testing.assert_array_equal(grad, [0, 0])
    grad[...] = 3
    with pytest.warns(DeprecationWarning, match="cleargrad"):
        param.zerograd()
    assert param.grad is grad
    np.testing.assert_array_equal(grad, [0, 0])


def test_zerograd_never_writes_to_a_lent_gradient():
    lent = np.ones(2)
    param = Parameter(np.ones(2))
    param.lend_grad(lent)
    with pytest.warns(DeprecationWarning, match="cleargrad"):
        param.zerograd()
    np.testing.assert_array_equal(param.grad, [0, 0])
    np.testing.assert_array_equal(lent, [1, 1])


def test_addgrad():
    a, b = Parameter(np.zeros(2)), Parameter(np.zeros(2))
    a.addgrad(b)
    assert a.grad is None
    b.grad = np.array([1.0, 2.0])
    a.addgrad(b)
    assert a.grad is b.grad
    a.addgrad(b)
    np.testing.assert_array_equal(a.grad, [2, 4])
    np.testing.assert_array_equal(b.grad, [1, 2])


def test_addgrad_never_writes_to_a_lent_gradient():
    lent = np.ones(2)
    a, b = Parameter(np.zeros(2)), Parameter(np.zeros(2))
    a.lend_grad(lent)
    b.lend_grad(lent)
    a.addgrad(b)
    np.testing.assert_array_equal(a.grad, [2, 2])
    np.testing.assert_array_equal(lent, [1, 1])


def test_addgrad_initialises():
    source = Parameter(np.zeros(2, np.float32))
    source.grad = np.ones(2, np.float32)
    target = Parameter(3)
    target.cleargrad()
    target.addgrad(source)
    np.testing.assert_array_equal(target.array, np.full(2, 3, np.float32))
    np.testing.assert_array_equal(target.grad, [1, 1])


def test_addgrad_refuses_another_shape_or_dtype():
    a, b = Parameter(np.zeros((2, 3)), name="a"), Parameter(np.zeros(3))
    b.grad = np.ones(3)
    with pytest.raises(ValueError, match=r"'a' has shape \(3,\)"):
        a.addgrad(b)
    a.grad = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"'a' has shape \(3,\)"):
        a.addgrad(b)
    c = Parameter(np.zeros((2, 3), np.float32), name="c")
    with pytest.raises(TypeError, match="'c' has dtype float64"):
        c.addgrad(a)


def test_copydata_copies_in_place():
    a, b = Parameter(np.zeros(2, np.float32)), Parameter(np.array([1.0, 2.0]))
    array = a.array
    a.copydata(b)
    assert a.array is array
    np.testing.assert_array_equal(array, np.array([1, 2], np.float32))


def test_copydata_initialises_either_side():
    lazy, ready = Parameter(7), Parameter(np.array([1.0, 2.0], np.float32))
    lazy.copydata(ready)
    np.testing.assert_array_equal(lazy.array, [1, 2])
    assert lazy.array is not ready.array

    lazy = Parameter(7)
    ready.copydata(lazy)
    np.testing.assert_array_equal(lazy.array, [7, 7])
    np.testing.assert_array_equal(ready.array, [7, 7])

    a, b = Parameter(1), Parameter(2)
    a.copydata(b)
    assert a.array is None
    assert b.array is None


def test_copydata_broadcasts_nothing():
    a, b = Parameter(np.zeros((2, 3)), name="a"), Parameter(np.ones(3))
    with pytest.raises(ValueError, match=r"\(3,\).*'a' of shape \(2, 3\)"):
        a.copydata(b)
    np.testing.assert_array_equal(a.array, np.zeros((2, 3)))
    with pytest.raises(TypeError):
        b.copydata(Parameter(np.ones(3, complex)))


def test_update_calls_the_rule():
    param = Parameter(np.ones(1))
    param.update()
    param.update_rule = CountingRule()
    param.update()
    assert param.update_rule.updated == [param]


def test_copy_shares_array_rule_and_gradient():
    param = Parameter(np.ones(2), name="W")
    param.update_rule = CountingRule()
    param.grad = np.ones(2)
    param.tag = "mine"
    twin = copy.copy(param)
    assert twin is not param
    assert twin.array is param.array
    assert twin.grad is param.grad
    assert twin.update_rule is param.update_rule
    assert twin.name == "W"
    assert twin.tag == "mine"
    twin.grad = None
    assert param.grad is not None


@pytest.mark.parametrize("first", [0, 1, 2])
def test_copies_of_an_uninitialised_parameter_share_its_first_array(first):
    param = Parameter(3)
    params = [param, copy.copy(param)]
    params.append(copy.copy(params[1]))
    params[first].initialize(2)
    array = params[first].array
    assert all(twin.array is array for twin in params)
    params[first].array = np.zeros(5)
    assert all(twin.array is array for twin in params if twin is not params[first])


def test_copy_made_after_initialisation_waits_for_nothing():
    param = Parameter(3)
    early = copy.copy(param)
    early.array = np.ones(2)
    late = copy.copy(param)
    late.array = np.zeros(2)
    np.testing.assert_array_equal(param.array, np.ones(2))
    np.testing.assert_array_equal(early.array, np.ones(2))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_deep_copy_and_pickle(duplicate):
    param = Parameter(Ramp(), (2, 2), name="W")
    param.grad = np.ones((2, 2))
    param.update_rule = CountingRule()
    param.tag = "mine"
    twin = duplicate(param)
    np.testing.assert_array_equal(twin.array, param.array)
    np.testing.assert_array_equal(twin.grad, param.grad)
    assert twin.array is not param.array
    assert twin.grad is not param.grad
    assert twin.update_rule is not param.update_rule
    assert (twin.name, twin.tag) == ("W", "mine")
    lazy = duplicate(Parameter(Ramp()))
    lazy.initialize(2)
    np.testing.assert_array_equal(lazy.array, [0.0, 1.0])


def test_subclass_may_have_attributes_and_weak_references():
    import weakref

    class Tagged(Parameter):
        pass

    param = Tagged(np.ones(1))
    param.extra = 1
    assert weakref.ref(param)() is param
    assert type(copy.copy(param)) is Tagged
