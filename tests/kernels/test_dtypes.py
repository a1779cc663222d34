"""Every dtype of parameter and gradient through the door, and what is known of dtypes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from steps import HYPERPARAM, arrays_of, changed, described, step_of

from fastadam.algorithms.adam import ADAM, Coefficients
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels import dtypes, multi_tensor
from fastadam.kernels.cpu import _tensors
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.table import TENSOR, Step

SHAPE = (5, 4, 3)
PARAMS = ("float16", "bfloat16", "float32", "float64")
GRADS = (*PARAMS, "longdouble", ">f2", ">f4", ">f8")
FAST = {
    ("float32", "float32"),
    ("float64", "float64"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
    ("float16", "float64"),
    ("bfloat16", "float64"),
    ("float32", "float64"),
}
PAIRS = [(p, g) for p in PARAMS for g in GRADS]


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def coefficients_at(t: int = 3, **changes: object) -> Coefficients:
    """The scalars of one step, AMSBound's unless changed."""
    return step_coefficients({**HYPERPARAM, **changes}, t, 0.05)


def some_arrays(
    p_name: str, g_name: str, shape: tuple[int, ...] = SHAPE, seed: int = 1
) -> list[np.ndarray]:
    """Return p, g, m, v, vhat."""
    random = np.random.default_rng(seed)
    p, g, m, v, vhat = random.standard_normal((5, *shape))
    state = [np.asarray(a, dtypes.computing_dtype(dtype_of(p_name))) for a in (m, v * v, vhat**2)]
    return [np.asarray(p, dtype_of(p_name)), np.asarray(g * 1.1, dtype_of(g_name)), *state]


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same values at an address that is no multiple of the item size."""
    view = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


LAYOUTS = {
    "C": lambda a: np.array(a, order="C"),
    "F": lambda a: np.array(a, order="F"),
    "permuted": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "every second": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "slice": lambda a: np.pad(a, 1)[1:-1, 1:-1, 1:-1],
    "misaligned": misaligned,
}


def same_bits(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Compare dtypes, shapes and bits; there is no NaN in these tests."""
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert not np.any(np.isnan(theirs))
        np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(np.signbit(mine), np.signbit(theirs))


@pytest.mark.parametrize(("p_name", "g_name"), PAIRS)
def test_every_pair_of_dtypes(p_name: str, g_name: str, case: Any) -> None:
    for shape in (SHAPE, (), (1,), (0, 3), (2, 1), (9001,)):
        with case(shape=shape):
            check_pair(p_name, g_name, shape)


def check_pair(p_name: str, g_name: str, shape: tuple[int, ...]) -> None:
    ours = some_arrays(p_name, g_name, shape)
    expected = [array.copy() for array in ours]
    for t in (1, 2, 3):
        adam_batch([step_of("p", *ours, coefficients_at(t))])
        adam_reference(*expected, coefficients_at(t))
    same_bits(ours, expected)


@pytest.mark.parametrize(("p_name", "g_name"), PAIRS)
def test_which_pairs_have_a_loop_of_their_own(p_name: str, g_name: str) -> None:
    step = step_of("p", *some_arrays(p_name, g_name), coefficients_at())
    others, odd = _tensors.describe([step], np.empty(1, TENSOR), dtypes.bfloat16_number())
    assert others == []
    assert odd == ([] if (p_name, g_name) in FAST else [0])


@pytest.mark.parametrize("g_name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("p_name", ["float16", "bfloat16"])
def test_half_arrays_in_any_layout(p_name: str, g_name: str, case: Any) -> None:
    for layout, gradient in itertools.product(LAYOUTS, repeat=2):
        with case(layout=layout, gradient=gradient):
            check_layouts(p_name, layout, gradient, g_name)


def check_layouts(p_name: str, layout: str, gradient: str, g_name: str) -> None:
    expected = some_arrays(p_name, g_name)
    p, g, *state = expected
    ours = [LAYOUTS[layout](array) for array in (p, *state)]
    lent = LAYOUTS[gradient](g)
    for t in (1, 2):
        adam_batch([step_of("p", ours[0], lent, *ours[1:], coefficients_at(t))])
        adam_reference(*expected, coefficients_at(t))
    same_bits([ours[0], lent, *ours[1:]], expected)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_strided_half_arrays_of_many_chunks(name: str) -> None:
    expected = some_arrays(name, name, (30_001,))
    ours = [np.repeat(array, 2)[::2] for array in expected]
    gap = np.repeat(expected[0], 2)[1::2]
    adam_batch([step_of("p", *ours, coefficients_at())])
    adam_reference(*expected, coefficients_at())
    same_bits([np.ascontiguousarray(array) for array in ours], expected)
    same_bits([np.ascontiguousarray(ours[0].base.reshape(-1)[1::2])], [gap])


def mixed_steps() -> list[Step]:
    """Steps of every pair of dtypes, dense and strided, of all variants."""
    steps = []
    for i, (p_name, g_name) in enumerate(PAIRS * 2):
        flags = {"amsgrad": bool(i & 1), "adabound": bool(i & 2)}
        arrays = some_arrays(p_name, g_name, (i * 37 % 101 + 1, 7), seed=i)
        if i % 3 == 0:
            arrays[0] = np.repeat(arrays[0], 2, axis=1)[:, ::2]
        c = coefficients_at(i + 1, **flags)
        steps.append(step_of(f"p{i}", *arrays[:4], arrays[4] if c.amsgrad else None, c))
    return steps


def test_all_dtypes_in_one_call_are_as_one_by_one() -> None:
    together, one_by_one, expected = mixed_steps(), mixed_steps(), mixed_steps()
    adam_batch(together)
    for step in one_by_one:
        adam_batch([step])
    for step in expected:
        adam_reference(*arrays_of(step), step.coefficients)
    for mine, alone, theirs in zip(together, one_by_one, expected, strict=True):
        arrays = [array for array in arrays_of(theirs) if array is not None]
        same_bits([array for array in arrays_of(mine) if array is not None], arrays)
        same_bits([array for array in arrays_of(alone) if array is not None], arrays)


def test_one_call_for_each_dtype_of_computation() -> None:
    names = ["float32", "float64", "float16", "bfloat16", "float16"]
    steps = [step_of("p", *some_arrays(name, name), coefficients_at()) for name in names]
    tables = described(steps)._on_cpu
    assert [(table.computing.name, table.indices) for table in tables] == [
        ("float32", [0, 2, 3, 4]),
        ("float64", [1]),
    ]


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_gradients_that_are_parameters_are_read_as_they_were(name: str) -> None:
    a, _, *state_a = some_arrays(name, name, (70_000,), seed=1)
    b, _, *state_b = some_arrays(name, name, (70_000,), seed=2)
    expected = [[a.copy(), b.copy(), *state_a], [b.copy(), a.copy(), *state_b]]
    expected = [[array.copy() for array in arrays] for arrays in expected]
    c = coefficients_at()
    adam_batch([step_of("a", a, b, *state_a, c), step_of("b", b, a, *state_b, c)])
    for arrays in expected:
        adam_reference(*arrays, c)
    same_bits([a, *state_a, b, *state_b], [x for e in expected for x in (e[0], *e[2:])])


@pytest.mark.parametrize("shift", [-2, -1, 1, 2, 998, 1000])
@pytest.mark.parametrize(
    ("p_name", "g_name"), [("float16", "float16"), ("float16", "float32"), ("float32", "float16")]
)
def test_gradients_that_overlap_parameters_of_another_size(
    p_name: str, g_name: str, shift: int
) -> None:
    """The gradient begins some bytes before or after the parameter, in the same memory."""
    p, g, *state = some_arrays(p_name, g_name, (1000,))
    step = shift * max(p.itemsize, g.itemsize)
    memory = np.zeros(16_000, np.uint8)
    mine = memory[4000 : 4000 + p.nbytes].view(p.dtype)
    lent = memory[4000 + step : 4000 + step + g.nbytes].view(g.dtype)
    lent[:] = g
    mine[:] = p  # overwrites some of the gradient, which may be NaN here and there
    expected = [mine.copy(), lent.copy(), *(array.copy() for array in state)]
    with np.errstate(invalid="ignore"):
        adam_batch([step_of("p", mine, lent, *state, coefficients_at())])
        adam_reference(*expected, coefficients_at())
    for ours, theirs in zip([mine, *state], [expected[0], *expected[2:]], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def copies(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a batch and count the gradients that were copied."""
    counted: list[int] = []
    real = multi_tensor.dense_gradient
    monkeypatch.setattr(
        multi_tensor, "dense_gradient", lambda p, g: (counted.append(g.size), real(p, g))[1]
    )
    adam_batch(steps)
    return len(counted)


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("gradient_first", [False, True])
@pytest.mark.parametrize("name", ["float16", "float32"])
def test_neighbours_are_not_taken_for_overlaps(
    monkeypatch: pytest.MonkeyPatch, name: str, gradient_first: bool, overlap: int
) -> None:
    """Extents are counted in bytes: a gradient that only touches its parameter is not copied."""
    memory = np.ones(2000, name)
    first, second = memory[:1000], memory[1000 - overlap : 2000 - overlap]
    p, g = (second, first) if gradient_first else (first, second)
    _, _, *state = some_arrays(name, name, (1000,))
    assert copies([step_of("p", p, g, *state, coefficients_at())], monkeypatch) == overlap


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_float64_gradients_are_rounded_on_the_way(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Block by block, with the bits of a copy in float32: nothing is copied whole."""
    p, _, *state = some_arrays(name, name, (1500,))
    g = np.random.default_rng(4).standard_normal(1500)
    odd = [1 + 2.0**-24, 1 + 3 * 2.0**-24, 3.4028235677973366e38, 1e300, 1e-40, np.nan, -np.inf]
    g[:7] = g[380:387] = odd
    rest, c = [p.copy(), *(array.copy() for array in state)], coefficients_at()
    with np.errstate(all="ignore"):
        rounded = g.astype(np.float32)
    assert copies([step_of("p", p, g, *state, c)], monkeypatch) == 0
    adam_batch([step_of("p", rest[0], rounded, *rest[1:], c)])
    assert [array.tobytes() for array in (p, *state)] == [array.tobytes() for array in rest]


def test_half_parameters_that_share_memory_are_stepped_in_turn() -> None:
    memory = np.linspace(-1, 1, 60_000).astype(np.float16)
    expected = memory.copy()
    parts = (slice(0, 40_000), slice(39_999, 59_999))
    cases = [some_arrays("float16", "float16", (p.stop - p.start,))[1:] for p in parts]
    references = [[array.copy() for array in case] for case in cases]
    c = coefficients_at()
    adam_batch(
        [step_of("p", memory[part], *rest, c) for part, rest in zip(parts, cases, strict=True)]
    )
    for part, rest in zip(parts, references, strict=True):
        adam_reference(expected[part], *rest, c)
    same_bits([memory], [expected])


@pytest.mark.parametrize("call", [adam_batch, described])
@pytest.mark.parametrize("wrong", ["own", "float64"])
@pytest.mark.parametrize("key", ADAM.state)
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_state_of_a_half_parameter_is_float32(
    name: str, key: str, wrong: str, call: object
) -> None:
    good = step_of("good", *some_arrays(name, name), coefficients_at())
    bad = step_of("l1/W", *some_arrays(name, name), coefficients_at())
    dtype = dtype_of(name if wrong == "own" else wrong)
    bad = changed(bad, **{key: bad.named()[key].astype(dtype)})
    before = [array.copy() for step in (good, bad) for array in arrays_of(step)]
    message = f"'l1/W' has dtype {name}, whose state is float32, but its state {key} has {dtype}"
    with pytest.raises(TypeError, match=message):
        call([good, bad])
    same_bits([array for step in (good, bad) for array in arrays_of(step)], before)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_eps_of_a_half_parameter_is_a_float32(name: str) -> None:
    """It may be less than a half type holds, for the step is made in float32."""
    ours = some_arrays(name, name)
    expected = [array.copy() for array in ours]
    adam_batch([step_of("p", *ours, coefficients_at(eps=1e-30))])
    adam_reference(*expected, coefficients_at(eps=1e-30))
    same_bits(ours, expected)
    with pytest.raises(ValueError, match="too small for float32"):
        adam_batch([step_of("p", *ours, coefficients_at(eps=1e-40))])
    same_bits(ours, expected)


@pytest.mark.parametrize("name", ["int16", "uint16", "V2", "bool", "complex64"])
def test_other_dtypes_of_two_bytes_and_more_are_no_numbers_to_step(name: str) -> None:
    p = np.zeros(4, name)
    assert not dtypes.is_half(p.dtype)
    assert not dtypes.is_floating(p.dtype)
    assert dtypes.computing_dtype(p.dtype) is None
    arrays = some_arrays("float32", "float32", (4,))
    with pytest.raises(TypeError, match="there are steps for float16, bfloat16, float32"):
        adam_batch([step_of("p", p, *arrays[1:], coefficients_at())])
    with pytest.raises(TypeError, match="it must be real floating"):
        adam_batch([step_of("p", arrays[0], p, *arrays[2:], coefficients_at())])


@pytest.mark.parametrize("order", "=<>")
@pytest.mark.parametrize(
    ("name", "computing", "half", "number"),
    [
        ("float16", "float32", True, 1),
        ("bfloat16", "float32", True, 2),
        ("float32", "float32", False, 0),
        ("float64", "float64", False, 0),
    ],
)
def test_what_is_known_of_a_dtype(
    name: str, computing: str, half: bool, number: int, order: str
) -> None:
    dtype = dtype_of(name).newbyteorder(order)
    assert dtypes.computing_dtype(dtype) == np.dtype(computing)
    assert dtypes.computing_dtype(dtype).isnative
    assert dtypes.is_floating(dtype)
    if dtype.isnative:
        assert dtypes.is_half(dtype) == half
        assert dtypes.stored(dtype) == number


def test_longdouble_is_floating_and_has_no_steps() -> None:
    assert dtypes.is_floating(np.dtype("longdouble"))
    assert dtypes.computing_dtype(np.dtype("longdouble")) is None


@pytest.mark.parametrize("name", PARAMS)
def test_state_like_keeps_shape_and_layout(name: str) -> None:
    for layout in ("C", "F", "permuted"):
        p = LAYOUTS[layout](some_arrays(name, name)[0])
        state = dtypes.state_like(p)
        assert state.dtype == dtypes.computing_dtype(p.dtype)
        assert state.shape == p.shape
        ratio = state.itemsize // p.itemsize
        assert state.strides == tuple(stride * ratio for stride in p.strides)
        assert not state.any()


def test_the_number_of_bfloat16_is_numpys() -> None:
    assert dtypes.bfloat16_number() == dtype_of("bfloat16").num


def test_without_ml_dtypes_there_is_no_bfloat16_and_nobody_imports_it() -> None:
    script = (
        "import sys, numpy, fastadam\n"
        "from fastadam.kernels import dtypes\n"
        "p, g = numpy.ones((2, 3), numpy.float16)\n"
        "fastadam.adam_step(p, g, *numpy.zeros((2, 3), numpy.float32), t=1)\n"
        "print(dtypes.bfloat16_number(), 'ml_dtypes' in sys.modules, p[0] != 1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["-1", "False", "True"], done.stderr
