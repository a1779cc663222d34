"""The door into the kernels: layouts, types, overlaps, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from steps import HYPERPARAM, arrays_of, changed, described, step_of

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels import multi_tensor, table
from fastadam.kernels.cpu._door import step_and_commit
from fastadam.kernels.cpu._rows import Rows
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.table import Step

SHAPE = (5, 4, 3)


def coefficients_at(t: int = 3, **changes: object) -> Coefficients:
    """The scalars of one step, AMSBound's unless changed."""
    return step_coefficients({**HYPERPARAM, **changes}, t, 0.05)


def some_arrays(dtype: str = "float32", shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    """Return p, g, m, v, vhat."""
    random = np.random.default_rng(1)
    p, g, m, v, vhat = random.standard_normal((5, *shape)).astype(dtype)
    return [np.asarray(array) for array in (p, g, m, v * v, vhat * vhat)]


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same values at an address that is no multiple of the item size."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    view = memory.view(array.dtype).reshape(array.shape)
    view[...] = array
    assert array.size == 0 or not view.flags.aligned
    return view


LAYOUTS = {
    "C": lambda a: np.ascontiguousarray(a),
    "F": lambda a: np.asfortranarray(a),
    "permuted": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every second": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "slice": lambda a: np.pad(a, 1)[1:-1, 1:-1, 1:-1],
    "misaligned": misaligned,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gradient", [*LAYOUTS, "broadcast", "read-only", "byte-swapped"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(layout: str, gradient: str, dtype: str) -> None:
    expected = some_arrays(dtype)
    if gradient == "broadcast":
        expected[1] = np.broadcast_to(expected[1][:, :1], SHAPE)
    p, g, m, v, vhat = expected
    ours = [LAYOUTS[layout](array.copy()) for array in (p, m, v, vhat)]
    if gradient in LAYOUTS:
        g = LAYOUTS[gradient](g)
    elif gradient == "read-only":
        g = g.copy()
        g.flags.writeable = False
    elif gradient == "byte-swapped":
        g = g.astype(g.dtype.newbyteorder())
    before = g.copy()
    for t in (1, 2, 3):
        c = coefficients_at(t)
        adam_batch([step_of("p", ours[0], g, *ours[1:], c)])
        adam_reference(*expected, c)
    for mine, theirs in zip(ours, [p, m, v, vhat], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(g, before)


@pytest.mark.parametrize("state", LAYOUTS)
def test_states_in_another_layout(state: str) -> None:
    expected = some_arrays()
    p, g, *states = (array.copy() for array in expected)
    states = [LAYOUTS[state](array) for array in states]
    adam_batch([step_of("p", p, g, *states, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    for mine, theirs in zip([p, *states], [expected[0], *expected[2:]], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_strided_arrays_of_many_chunks() -> None:
    expected = some_arrays(shape=(30_001,))
    ours = [np.repeat(array, 2)[::2] for array in expected]
    gap = np.repeat(expected[0], 2)[1::2].copy()
    adam_batch([step_of("p", *ours, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(ours[0].base.reshape(-1)[1::2], gap)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1, 1), (7, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zero_dim_empty_and_ones(shape: tuple[int, ...], dtype: str) -> None:
    expected = some_arrays(dtype, shape)
    ours = [array.copy() for array in expected]
    adam_batch([step_of("p", *ours, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.shape == shape
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("shape", [SHAPE, (), (1,), (0, 3), (2, 1), (9001,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("grad_dtype", ["float16", "float32", "float64", "longdouble"])
def test_gradients_of_any_real_dtype_are_rounded_once(
    grad_dtype: str, dtype: str, shape: tuple[int, ...]
) -> None:
    expected = some_arrays(dtype, shape)
    ours = [array.copy() for array in expected]
    g = np.asarray(expected[1].astype("float64") * 1.1, grad_dtype)
    expected[1] = g.astype(dtype)
    ours[1] = g
    adam_batch([step_of("p", *ours, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    np.testing.assert_array_equal(ours[0], expected[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_strided_arrays_of_several_chunks(dtype: str) -> None:
    shape = 4, 20_000
    p, g, *state = some_arrays("float64" if dtype == "float64" else "float32", shape)
    wide = np.zeros((*shape, 2), dtype)
    wide[..., 0] = p
    expected = [wide[..., 0].copy(), g, *(array.copy() for array in state)]
    rounded = expected[0].astype(state[0].dtype)
    adam_batch([step_of("p", wide[..., 0], np.asfortranarray(g), *state, coefficients_at())])
    adam_reference(rounded, *expected[1:], coefficients_at())
    np.testing.assert_array_equal(wide[..., 0], rounded.astype(dtype))
    assert not wide[..., 1].any()
    for mine, theirs in zip(state, expected[2:], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_mixed_types_variants_and_layouts_in_one_call() -> None:
    cases = []
    for i, dtype in enumerate(["float32", "float64"] * 4):
        flags = {"amsgrad": bool(i & 2), "adabound": bool(i & 4)}
        arrays = some_arrays(dtype, (i + 1, 3))
        if i % 3 == 0:
            arrays[1] = np.asfortranarray(arrays[1])
        cases.append((arrays, coefficients_at(i + 1, **flags)))
    expected = [[array.copy() for array in arrays] for arrays, _ in cases]
    adam_batch(
        [
            step_of(f"p{i}", *arrays[:4], arrays[4] if c.amsgrad else None, c)
            for i, (arrays, c) in enumerate(cases)
        ]
    )
    for (arrays, c), theirs in zip(cases, expected, strict=True):
        adam_reference(*theirs, c)
        for mine, their in zip(arrays, theirs, strict=True):
            np.testing.assert_array_equal(mine, their)


def test_no_steps() -> None:
    adam_batch([])
    described([])


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Note for every step how many tables it has, and whether their rows go one by one."""
    calls: list[tuple[int, bool]] = []

    def noted(tables: list[Rows], n_threads: Any, coefficients: Any, serial: bool, *a: Any) -> None:
        calls.append((len(tables), serial))
        step_and_commit(tables, n_threads, coefficients, serial, *a)

    monkeypatch.setattr(multi_tensor, "step_and_commit", noted)
    return calls


def test_one_call_per_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    steps = [
        step_of(f"p{i}", *some_arrays(dtype), coefficients_at())
        for i, dtype in enumerate(["float32", "float64", "float32"])
    ]
    adam_batch(steps)
    assert calls == [(2, False)]


def test_gradients_that_are_parameters_are_read_as_they_were() -> None:
    """The gradients of sum(a*b) are (b, a): the arrays themselves."""
    a, _, *state_a = some_arrays()
    b, _, *state_b = some_arrays()
    b += 1
    expected_a, expected_b = a.copy(), b.copy()
    reference_a = [expected_a, b.copy(), *(array.copy() for array in state_a)]
    reference_b = [expected_b, a.copy(), *(array.copy() for array in state_b)]
    c = coefficients_at()
    adam_batch([step_of("a", a, b, *state_a, c), step_of("b", b, a, *state_b, c)])
    adam_reference(*reference_a, c)
    adam_reference(*reference_b, c)
    np.testing.assert_array_equal(a, expected_a)
    np.testing.assert_array_equal(b, expected_b)


def test_a_gradient_that_is_a_shifted_view_of_its_parameter() -> None:
    memory = np.linspace(-1, 1, 1001).astype(np.float32)
    p, g = memory[:1000], memory[1:]
    expected = [p.copy(), g.copy(), *some_arrays(shape=(1000,))[2:]]
    state = [array.copy() for array in expected[2:]]
    adam_batch([step_of("p", p, g, *state, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    np.testing.assert_array_equal(p, expected[0])


@pytest.mark.parametrize("strided", [False, True])
def test_a_gradient_inside_a_strided_parameter(strided: bool) -> None:
    memory = np.linspace(-1, 1, 2000)
    p, g = memory[::2], (memory[1::2] if not strided else memory[:1000])
    expected = [p.copy(), g.copy(), *some_arrays("float64", (1000,))[2:]]
    state = [array.copy() for array in expected[2:]]
    adam_batch([step_of("p", p, g, *state, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    np.testing.assert_array_equal(p, expected[0])


def test_parameters_that_share_memory_are_stepped_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    memory = np.linspace(-1, 1, 60_000).astype(np.float32)
    expected = memory.copy()
    cases = []
    for part in (slice(0, 40_000), slice(20_000, 60_000)):
        _, g, m, v, vhat = some_arrays(shape=(40_000,))
        cases.append((part, g, m, v, vhat))
    references = [[array.copy() for array in case[1:]] for case in cases]
    c = coefficients_at()
    adam_batch([step_of("p", memory[part], *rest, c) for part, *rest in cases])
    for (part, *_), (g, m, v, vhat) in zip(cases, references, strict=True):
        adam_reference(expected[part], g, m, v, vhat, c)
    np.testing.assert_array_equal(memory, expected)
    # two threads that take a tensor each are not always in each other's way
    assert calls == [(1, True)]


def replaced(**arrays: object) -> Step:
    """A good step with some fields replaced."""
    return changed(step_of("l1/W", *some_arrays(), coefficients_at()), **arrays)


REFUSED = {
    "list as parameter": (replaced(p=[1.0]), TypeError, "numpy.ndarray, not list"),
    "integers": (replaced(p=np.zeros(SHAPE, int)), TypeError, "int64"),
    "complex": (replaced(p=np.zeros(SHAPE, complex)), TypeError, "complex128"),
    "longdouble": (replaced(p=np.zeros(SHAPE, "g")), TypeError, "longdouble|float128|float96"),
    "half with states of another dtype": (
        replaced(p=np.zeros(SHAPE, "f2"), v=np.zeros(SHAPE, "f2")),
        TypeError,
        "float16, whose state is float32, but its state v has float16",
    ),
    "byte-swapped": (replaced(p=np.zeros(SHAPE, ">f4")), TypeError, "byte-swapped"),
    "gradient is a list": (replaced(g=[1.0]), TypeError, "gradient must be a numpy.ndarray"),
    "complex gradient": (replaced(g=np.zeros(SHAPE, complex)), TypeError, "real floating"),
    "integer gradient": (replaced(g=np.zeros(SHAPE, int)), TypeError, "real floating"),
    "gradient's shape": (replaced(g=np.zeros((4, 5, 3))), ValueError, r"\(4, 5, 3\)"),
    "state's shape": (replaced(m=np.zeros((60,), "f4")), ValueError, r"state m .* \(60,\)"),
    "state's dtype": (replaced(v=np.zeros(SHAPE)), TypeError, "state v.* float64"),
    "state is None": (replaced(m=None), TypeError, "state m"),
    "no vhat": (replaced(vhat=None), ValueError, "amsgrad needs"),
    "eps": (replaced(coefficients=coefficients_at(eps=1e-39)), ValueError, "eps = 1e-39"),
    "state is the parameter": (
        (lambda step: changed(step, v=step.p[:]))(replaced(p=np.zeros(SHAPE, "f4")[::-1])),
        ValueError,
        "array and its v share memory",
    ),
    "zero stride": (
        replaced(p=np.lib.stride_tricks.as_strided(np.zeros(3, "f4"), SHAPE, (0, 0, 4))),
        ValueError,
        "share memory",
    ),
    "sliding window": (
        replaced(p=np.lib.stride_tricks.as_strided(np.zeros(99, "f4"), SHAPE, (4, 4, 4))),
        ValueError,
        "share memory",
    ),
}
for _key in ("p", *ADAM.state):
    _locked = np.zeros(SHAPE, "f4")
    _locked.flags.writeable = False
    REFUSED[f"read-only {_key}"] = (replaced(**{_key: _locked}), ValueError, "read-only")


@pytest.mark.parametrize("call", [adam_batch, described])
@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_parameter_and_change_nothing(case: str, call: object) -> None:
    step, error, message = REFUSED[case]
    good = step_of("good", *some_arrays(), coefficients_at())
    before = [array.copy() for array in arrays_of(good)]
    with pytest.raises(error, match=message) as info:
        call([good, step])
    assert "'l1/W'" in str(info.value)
    for array, old in zip(arrays_of(good), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_a_description_changes_nothing() -> None:
    step = step_of("p", *some_arrays(), coefficients_at())
    before = [array.copy() for array in arrays_of(step)]
    described([step])
    for array, old in zip(arrays_of(step), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_subnormal_eps_is_fine_in_float64() -> None:
    ours = some_arrays("float64")
    expected = [array.copy() for array in ours]
    c = coefficients_at(eps=1e-310)
    adam_batch([step_of("p", *ours, c)])
    adam_reference(*expected, c)
    np.testing.assert_array_equal(ours[0], expected[0])


def test_overflowing_bounds_are_infinite_without_a_warning() -> None:
    ours = some_arrays()
    adam_batch([step_of("p", *ours, coefficients_at(gamma=1e-45))])
    assert np.isfinite(ours[0]).all()


def test_row_layout_has_no_padding() -> None:
    assert table.TENSOR.itemsize == 19 * np.dtype(np.intp).itemsize
