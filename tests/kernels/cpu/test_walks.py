"""Arrays that share no dense layout: brought together chunk by chunk, with the bits of copies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import HYPERPARAM, arrays_of, described, step_of

import fastadam
from fastadam import Adam, optimizer_hooks
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels import dtypes, multi_tensor
from fastadam.kernels.cpu import threads
from fastadam.kernels.ops import CLIP, ROUND, Op
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.table import Step

# Elements that are brought together at once, where none lies across; the bytes where one does.
FEW, ROOM = 512, 65536

Array = np.ndarray[Any, Any]


def interleaved(x: Array) -> Array:
    return np.repeat(x[..., None], 2, axis=-1)[..., 0]


def third(x: Array) -> Array:
    return np.repeat(x[..., None], 3, axis=-1)[..., 1]


def backwards(x: Array) -> Array:
    every = (..., *[slice(None, None, -1)] * x.ndim)
    return np.array(x[every], order="C")[every]


def reversed_and_apart(x: Array) -> Array:
    """The first axis backwards, with gaps in all others."""
    room = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    view = room[(..., *[slice(None, None, -2 if axis == 0 else 2) for axis in range(x.ndim)])]
    view[...] = x
    return view


def fortran(x: Array) -> Array:
    return np.array(x, order="F")


def permuted(x: Array) -> Array:
    """The axes in the order 1, 2, ..., 0 in memory."""
    if x.ndim < 2:
        return x.copy()
    return np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)


def misaligned(x: Array) -> Array:
    room = np.zeros(x.nbytes + 1, np.uint8)
    view = room[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def field(x: Array) -> Array:
    """What a packed record holds beside a byte."""
    room = np.zeros((*x.shape, x.itemsize + 1), np.uint8)
    view = room[..., 1:].view(x.dtype)[..., 0]
    view[...] = x
    return view


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "dense": np.copy,
    "interleaved": interleaved,
    "third": third,
    "backwards": backwards,
    "reversed and apart": reversed_and_apart,
    "fortran": fortran,
    "permuted": permuted,
    "misaligned": misaligned,
    "field": field,
}
SHAPES = [
    (),
    (1,),
    (7,),
    (0,),
    (3, 5),
    (1, 6),
    (4, 1),
    (2, 3, 4),
    (5, 1, 3),
    (2, 3, 2, 5),
    (1, 4, 1, 3),
]
# one less and one more than a chunk; whole rows in one, and rows that are longer; many tiles
LARGE = [
    (FEW - 1,),
    (FEW,),
    (FEW + 1,),
    (2 * FEW + 1,),
    (3, FEW - 1),
    (3, FEW),
    (3, FEW + 1),
    (17, 1000),
    (2, ROOM // 4 + 3),
    (900, 21),
    (31, 2, 300),
]


def dtype_of(name: str) -> Any:
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


def values(shape: tuple[int, ...], p_name: str, g_name: str) -> list[Array]:
    """p, g, m, v and vhat."""
    drawn = np.random.default_rng(len(shape)).standard_normal((5, *shape))
    p, g = dtype_of(p_name), dtype_of(g_name)
    computing = dtypes.computing_dtype(p)
    m, v, vhat = drawn[2], drawn[3] ** 2, drawn[4] ** 2
    state = [np.asarray(x).astype(computing) for x in (m, v, vhat)]
    return [np.asarray(drawn[0]).astype(p), np.asarray(drawn[1]).astype(g), *state]


def scalars() -> Any:
    return step_coefficients(HYPERPARAM, 3, 0.05)


def same(mine: list[Array], theirs: list[Array]) -> None:
    """All but the gradient."""
    for k, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        assert k == 1 or a.tobytes() == b.tobytes(), k


def check(arrays: list[Array], layouts: list[str]) -> None:
    """One step of arrays in these layouts, and of dense copies; nobody else's memory changes."""
    expected = [array.copy() for array in arrays]
    with np.errstate(all="ignore"):
        adam_batch([step_of("p", *expected, scalars())])
    ours = [LAYOUTS[name](array) for name, array in zip(layouts, arrays, strict=True)]
    rooms = [array if array.base is None else array.base for array in ours]
    before = [np.array(room) for room in rooms]
    adam_batch([step_of("p", *ours, scalars())])
    same(ours, expected)
    for array, room, was in zip(ours, rooms, before, strict=True):
        # what stood in the gaps stands there: with the elements as they were, all is as it was
        array[...] = arrays[[a is array for a in ours].index(True)]
        assert room.tobytes() == was.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("p_name", ["float16", "bfloat16", "float32", "float64"])
def test_every_layout_of_every_array(p_name: str, shape: tuple[int, ...]) -> None:
    computing = str(dtypes.computing_dtype(dtype_of(p_name)))
    kinds = [p_name, computing, "float64", ">f4", ">f8", "longdouble"]
    for name, place in itertools.product(LAYOUTS, range(5)):
        layouts = ["dense"] * 5
        layouts[place] = name
        for g_name in kinds if place == 1 else [computing]:
            check(values(shape, p_name, g_name), layouts)


@pytest.mark.parametrize("seed", range(40))
def test_mixed_layouts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p_name = str(rng.choice(["float16", "float32", "float32", "float64"]))
    g_name = str(rng.choice(["float16", "float32", "float64", ">f4"]))
    for shape in (*SHAPES, *LARGE):
        layouts = [str(rng.choice(list(LAYOUTS))) for _ in range(5)]
        check(values(shape, p_name, g_name), layouts)


@pytest.mark.parametrize("shape", LARGE, ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_sizes_around_chunks(name: str, shape: tuple[int, ...]) -> None:
    for places in ([0], [1], [2], [0, 1, 2, 3, 4]):
        layouts = [name if k in places else "dense" for k in range(5)]
        check(values(shape, "float32", "float32"), layouts)
    check(values(shape, "float16", "float64"), [name, name, "dense", "dense", "dense"])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1), (0, 2), (0, 1, 2)], ids=str)
def test_broadcast_gradients(axes: tuple[int, ...], dtype: str) -> None:
    shape = 9, 31, 17
    small = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    drawn = np.asarray(np.random.default_rng(0).standard_normal(small)).astype(dtype)
    g = np.broadcast_to(drawn, shape)
    for layout in ("dense", "interleaved", "fortran"):
        p, _, *state = values(shape, "float32", "float32")
        theirs = [p.copy(), g.copy(), *(array.copy() for array in state)]
        adam_batch([step_of("p", *theirs, scalars())])
        ours = [LAYOUTS[layout](p), g, *state]
        adam_batch([step_of("p", *ours, scalars())])
        same(ours, theirs)


def test_the_formula() -> None:
    """Beside the reference, not beside dense arrays in the same loops."""
    arrays = values((40, 333), "float32", "float32")
    expected = [array.copy() for array in arrays]
    ours = [interleaved(arrays[0]), fortran(arrays[1]), permuted(arrays[2]), *arrays[3:]]
    adam_batch([step_of("p", *ours, scalars())])
    adam_reference(*expected, scalars())
    same(ours, expected)


def many_steps() -> list[Step]:
    """Steps of several layouts and sizes, some of them neighbours in one piece of memory."""
    steps, pair = [], np.zeros((64, 500, 2), np.float32)
    for i, (layout, shape) in enumerate(
        [("third", (700,)), ("fortran", (64, 500)), ("dense", (33,)), ("field", (20, 30))]
    ):
        p, g, *state = values(shape, "float32", "float32")
        if shape == (64, 500):
            # the other elements belong to a parameter that another thread may step
            for j in (0, 1):
                pair[..., j] = p + j
                own = [array.copy() for array in state]
                steps.append(step_of(f"pair{j}", pair[..., j], fortran(g), *own, scalars()))
        steps.append(step_of(f"p{i}", LAYOUTS[layout](p), LAYOUTS[layout](g), *state, scalars()))
    return steps


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_threads(n: int) -> None:
    one, many = many_steps(), many_steps()
    before = threads.set_by_hand()
    try:
        threads.set_num_threads(1)
        adam_batch(one)
        threads.set_num_threads(n)
        adam_batch(many)
    finally:
        threads.set_num_threads(before)
    for a, b in zip(one, many, strict=True):
        same(arrays_of(a), arrays_of(b))


def test_gradients_are_copied_only_where_there_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    real = multi_tensor.dense_gradient
    monkeypatch.setattr(
        multi_tensor, "dense_gradient", lambda p, g: (copied.append(g.dtype.str), real(p, g))[1]
    )
    for p_layout, g_layout in itertools.product(LAYOUTS, LAYOUTS):
        for g_name in ("f4", "f8", "f2"):
            p, g, *state = values((6, 4), "f4", g_name)
            adam_batch(
                [step_of("p", LAYOUTS[p_layout](p), LAYOUTS[g_layout](g), *state, scalars())]
            )
    assert copied == []
    p, g, *state = values((6, 4), "f4", ">f4")
    adam_batch([step_of("p", p, g, *state, scalars())])
    assert copied == [">f4"]


@pytest.mark.parametrize("layout", ["dense", "interleaved", "fortran"])
def test_a_gradient_that_is_part_of_what_is_written(layout: str) -> None:
    """It is read as it was, in whatever layout it is."""
    for change in (lambda p: p.T, lambda p: p[::-1], lambda p: p[:, ::-1], lambda p: p):
        p, _, *state = values((300, 300), "float32", "float32")
        ours = LAYOUTS[layout](p)
        theirs = [p.copy(), change(ours).copy(), *(array.copy() for array in state)]
        adam_batch([step_of("p", ours, change(ours), *state, scalars())])
        adam_batch([step_of("p", *theirs, scalars())])
        same([ours, ours, *state], theirs)


def test_parameters_that_share_elements_go_in_turn_strided_ones_last() -> None:
    memory = np.linspace(-1, 1, 4000).astype(np.float32)
    expected = memory.copy()
    (_, g, *a), (_, h, *b) = values((2000,), "f4", "f4"), values((2000,), "f4", "f4")
    copies = [x.copy() for x in (*a, *b)]
    adam_batch(
        [
            step_of("strided", memory[::2], g, *a, scalars()),
            step_of("dense", memory[:2000], h, *b, scalars()),
        ]
    )
    adam_batch([step_of("dense", expected[:2000], h, *copies[3:], scalars())])
    adam_batch([step_of("strided", expected[::2], g, *copies[:3], scalars())])
    assert memory.tobytes() == expected.tobytes()


def test_another_layout_at_the_next_step() -> None:
    """Axes are found anew before every step: the same array may be given other strides."""
    room = np.arange(24, dtype=np.float32) / 8
    p = room[:12].reshape(3, 4)[:, ::2]
    g, m, v = (np.full((3, 2), x, np.float32) for x in (0.5, 0, 0))
    target = {"p": p}
    opt = Adam(alpha=0.1).setup(target)
    other = {"p": p.copy()}
    beside = Adam(alpha=0.1).setup(other)
    for grad in (g, np.asfortranarray(g), np.broadcast_to(np.float32(2), (3, 2)), g[::-1], m + v):
        opt.apply_gradients({"p": grad})
        beside.apply_gradients({"p": np.ascontiguousarray(grad)})
        assert p.tobytes() == other["p"].tobytes()


def test_dense_and_odd_gradients_in_turn() -> None:
    """What was found out for a gradient is not taken for the next one's."""
    p, g, *_ = values((300, 7), "f4", "f4")
    ours, theirs = {"p": p.copy()}, {"p": p.copy()}
    opt, beside = Adam(alpha=0.1).setup(ours), Adam(alpha=0.1).setup(theirs)
    for change in (np.copy, fortran, np.copy, third, misaligned, fortran, np.copy, field):
        opt.apply_gradients({"p": change(g)})
        beside.apply_gradients({"p": g.copy()})
        assert ours["p"].tobytes() == theirs["p"].tobytes()


def test_gradients_that_cannot_be_written(tmp_path: Path) -> None:
    """They are only read: this one's memory would end the process."""
    p, g, *state = values((1000,), "f4", "f4")
    np.repeat(g, 2).tofile(tmp_path / "g")
    locked = np.memmap(tmp_path / "g", np.float32, "r")[::2]
    theirs = [p.copy(), g, *(array.copy() for array in state)]
    adam_batch([step_of("p", p, np.asarray(locked), *state, scalars())])
    adam_batch([step_of("p", *theirs, scalars())])
    same([p, g, *state], theirs)


ODD: dict[str, Callable[[Array], Array]] = {
    **LAYOUTS,
    "float64": lambda g: g.astype(np.float64),
    "another byte order": lambda g: g.astype(g.dtype.newbyteorder()),
    "half": lambda g: g.astype(np.float16),
    "broadcast": lambda g: np.broadcast_to(g[:1], g.shape),
}


@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("name", ODD)
def test_with_everything_that_is_done_to_gradients(name: str, dtype: str, fp32: bool) -> None:
    """Whole numbers, so that all sums of squares are exact, in whatever order they are added."""
    rng = np.random.default_rng(3)
    for kind in ("plain", "decay", "clip", "both", "monitor", "scale", "skip"):
        results = []
        for change in (ODD[name], None):
            rng = np.random.default_rng(3)
            given = rng.integers(-8, 9, (30, 60)).astype(dtype)
            target = {
                "a": rng.integers(-8, 9, (30, 60)).astype(dtype),
                "b": np.ones(3, dtype),
            }
            opt = Adam(alpha=0.1)
            if fp32:
                opt.use_fp32_update()
            opt.setup(target)
            if kind in ("decay", "both"):
                opt.add_hook(optimizer_hooks.WeightDecay(0.25))
            if kind in ("clip", "both"):
                opt.add_hook(optimizer_hooks.GradientClipping(4.0))
            opt.monitor = kind == "monitor"
            if kind == "skip":
                opt.on_nonfinite = "skip"
            for _ in range(3):
                odd = ODD[name](given)
                g = odd if change is not None else np.array(odd, odd.dtype.newbyteorder("="))
                grads = {"a": g, "b": np.ones(3, dtype)}
                opt.apply_gradients(grads, **({"loss_scale": 8.0} if kind == "scale" else {}))
            last = opt.last_update
            arrays = target["a"].tobytes(), target["b"].tobytes()
            results.append((*arrays, opt.t, last.applied, last.grad_norm))
        assert results[0] == results[1], kind


def test_a_refusal_changes_nothing() -> None:
    p, g, *state = values((30, 40), "f4", "f4")
    good = [interleaved(p), fortran(g), *map(third, state)]
    before = [array.copy() for array in good]
    locked = np.zeros((2, 4), np.float32)[:, ::2]
    locked.flags.writeable = False
    odd = [locked, *(np.zeros((2, 2), np.float32) for _ in range(4))]
    steps = [step_of("good", *good, scalars()), step_of("locked", *odd, scalars())]
    with pytest.raises(ValueError, match="'locked'"):
        described(steps)
    same(good, before)
    target = {"a": interleaved(p), "b": np.ones(3, np.float32)}
    opt = fastadam.Adam().setup(target)
    opt.apply_gradients({"a": g, "b": np.ones(3, np.float32)})
    kept = target["a"].copy()
    with pytest.raises(ValueError, match="shape"):
        opt.apply_gradients({"a": g.T, "b": np.ones(3, np.float32)})
    assert opt.t == 1
    assert target["a"].tobytes() == kept.tobytes()
    target["a"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.apply_gradients({"a": g, "b": np.ones(3, np.float32)})
    assert opt.t == 1
    assert target["a"].tobytes() == kept.tobytes()


def test_an_update_with_a_strided_parameter_is_one_call() -> None:
    p, g, *state = values((6, 4), "f4", "f4")
    step = described([step_of("p", interleaved(p), fortran(g), *state, scalars())])
    step.read(step.coefficients)
    assert step.in_c


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize(
    ("dtype", "g_dtype"),
    [
        ("float16", "float16"),
        ("float32", "float16"),
        ("float32", "float32"),
        ("float32", "float64"),
        ("float64", "float64"),
    ],
)
def test_sums_of_squares_of_gradients_that_lie_apart(dtype: str, g_dtype: str, layout: str) -> None:
    """The bits of dense copies; a program on the way, and the step after it, see the same."""
    rng = np.random.default_rng(5)
    numbers = [rng.standard_normal((37, 41)).astype(g_dtype) for _ in range(2)]
    computing = "float64" if dtype == "float64" else "float32"
    found = []
    for lay_out in (LAYOUTS[layout], np.copy):
        arrays = [
            (np.ones((37, 41), dtype), lay_out(g), *np.zeros((3, 37, 41), computing))
            for g in numbers
        ]
        c = step_coefficients(HYPERPARAM, 1)
        step = described([step_of(f"p{i}", *own, c) for i, own in enumerate(arrays)])
        step.read([c])
        sums = [step.sums_of_squares(), step.sums_of_squares([2.0, 4.0])]
        rounded = [Op(ROUND)] if g_dtype == "float16" else []
        assert step.program([[Op(CLIP, -0.5, 0.5), *rounded]], 0, False)
        sums.append(step.sums_of_squares_after(2))
        step.step({}, {}, ())
        found.append((sums, [array.tobytes() for p, _, *state in arrays for array in (p, *state)]))
    assert found[0] == found[1]
    squares = [np.sum(g.astype(computing).astype(np.float64) ** 2) for g in numbers]
    np.testing.assert_allclose(found[0][0][0], squares, rtol=1e-12)
