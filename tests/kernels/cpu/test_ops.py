"""Programs of operations before a step: the bits of one pass after the other in NumPy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from steps import step_of

import fastadam
from fastadam.algorithms.adam import Coefficients
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels._source import ArraySource
from fastadam.kernels.cpu import _cpu_features, _threads, engine
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.multi_tensor import MultiTensorStep
from fastadam.kernels.ops import ADD, ADD_SIGN, CLIP, DIVIDE, MULTIPLY, OP, ROUND, Op
from fastadam.kernels.reference import adam_reference, squares_reference
from fastadam.kernels.table import Table

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16")
F2, F4, F8 = np.dtype("f2"), np.dtype("f4"), np.dtype("f8")
BF = np.dtype(ml_dtypes.bfloat16)
# Parameter, gradient and, where the parameter is its master, half-precision parameter.
KINDS: list[tuple[Any, Any, Any]] = [
    *((p, g, None) for p, g in [(F4, F4), (F4, F2), (F4, BF), (F2, F2), (F2, F4), (BF, BF)]),
    *((BF, F4, None), (F4, F2, F2), (F4, BF, BF), (F4, F4, F2), (F4, F4, BF), (F4, BF, F2)),
]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e-38, 1e-7, 3e38, 65504.0, 0.7, -0.7]
# Sums over others are seldom numbers.
FINITE = [0.0, -0.0, 1e-40, -1e-40, 1e-38, 1e-7, 0.7, -0.7]
TINY = np.finfo(F4).tiny
OPS = {
    "divide": [Op(DIVIDE, 37.5), Op(DIVIDE, 1e-3), Op(DIVIDE, 3e5, 7.0)],
    "divide by a power of 2": [Op(DIVIDE, 2.0**k) for k in (16, -3, 40, 110, -120)],
    "add": [
        Op(ADD, 1e-4),
        Op(ADD, -0.3),
        Op(ADD, 0.3, 0.7),
        Op(ADD, 1e-40, 1e-3),
        Op(ADD, 2, 1e39),
    ],
    "add sign": [Op(ADD_SIGN, 0.02), Op(ADD_SIGN, -1e-40)],
    "clip": [Op(CLIP, -0.5, 0.5), Op(CLIP, 0.0, 0.7), Op(CLIP, 1e-41, 1e39)],
    "multiply": [Op(MULTIPLY, b=0.999), Op(MULTIPLY, b=1e-39), Op(MULTIPLY, b=-3e38)],
    "round": [Op(ROUND)],
}


def flush(x: Any) -> Any:
    """Zero of its sign for subnormal float32."""
    return x if x.dtype == F8 else np.where(abs(x) < TINY, np.copysign(F4.type(0), x), x)


def apply(op: Op, p: np.ndarray, g: np.ndarray, stored: np.dtype[Any]) -> np.ndarray:
    """One operation as a pass of its own, on a gradient in the type of the computation."""
    a, b = map(g.dtype.type, op[1:])
    p = p.astype(g.dtype)
    found = {
        DIVIDE: lambda: flush(flush(g) / a),
        ADD: lambda: (g + a * p) * b,
        ADD_SIGN: lambda: g + a * np.sign(p),
        # of a zero and a zero as its bound NumPy 1 takes the bound, and NumPy 2 the other
        CLIP: lambda: np.where(g == a, a, np.where(g == b, b, np.clip(g, a, b))),
        MULTIPLY: lambda: g * b,
        ROUND: lambda: g.astype(stored).astype(g.dtype),
    }[op.kind]()
    assert found.dtype == g.dtype
    return np.asarray(found)


def some(
    random: np.random.Generator, n: int, dtype: Any, special: list[float] = FINITE
) -> np.ndarray:
    array = random.standard_normal(n) * 10.0 ** random.uniform(-3, 1, n)
    if n > 40:
        places = random.integers(0, n, n // 8)
        array[places] = random.choice(special, places.size)
    with np.errstate(over="ignore"):
        return array.astype(dtype)


class Row(NamedTuple):
    """What is stepped, and by which program."""

    p: np.ndarray
    g: np.ndarray
    m: np.ndarray
    v: np.ndarray
    half: np.ndarray | None
    program: list[Op]


def make(random: np.random.Generator, n: int, kind: Any, program: list[Op]) -> Row:
    p_dtype, g_dtype, half_dtype = kind
    special = [FINITE, SPECIAL][random.integers(2)]
    p = some(random, n, p_dtype, special)
    m, v = (random.standard_normal(n).astype(computing_dtype(p_dtype)) for _ in range(2))
    half = None if half_dtype is None else p.astype(half_dtype)
    if half is not None:
        # written from outside
        half[::5] = some(random, half[::5].size, half_dtype, special)
    return Row(p, some(random, n, g_dtype, special), m, v * v, half, program)


def copied(row: Row) -> Row:
    arrays = [None if array is None else array.copy() for array in row[:5]]
    return Row(*arrays, row.program)


def after(row: Row, n: int | None = None) -> np.ndarray:
    """What the first operations leave of a gradient, in the type of the computation."""
    g = row.g.astype(row.m.dtype)
    for op in row.program[:n]:
        g = apply(op, row.p if row.half is None else row.half, g, row.g.dtype)
    return g


def step_in_numpy(row: Row, c: Coefficients, write: bool) -> None:
    """The passes and the step, one after the other; a program of nothing writes nothing."""
    g = after(row)
    if row.half is not None:
        rounded = row.p.astype(row.half.dtype)
        left = (rounded == row.half) & (np.signbit(rounded) == np.signbit(row.half))
        left |= np.isnan(rounded) & np.isnan(row.half)
        row.p[:] = np.where(left, row.p, row.half.astype(row.p.dtype))
    adam_reference(row.p, g, row.m, row.v, None, c)
    if row.half is not None:
        row.half[:] = row.p.astype(row.half.dtype)
    if write and row.program:
        row.g[:] = g.astype(row.g.dtype)


def same(ours: np.ndarray | None, theirs: np.ndarray | None) -> None:
    """Compare every bit; of NaN only that it is one."""
    if ours is None or theirs is None:
        assert ours is theirs
        return
    assert ours.dtype == theirs.dtype
    nan = np.isnan(theirs.astype(F8))
    np.testing.assert_array_equal(np.isnan(ours.astype(F8)), nan)
    bits = f"u{ours.itemsize}"
    np.testing.assert_array_equal(ours[~nan].view(bits), theirs[~nan].view(bits))


def same_sums(ours: list[float], arrays: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(ours, [squares_reference(array) for array in arrays])


def coefficients() -> Coefficients:
    hp = dict(fastadam.AdamW(weight_decay_rate=0.01, alpha=0.02, eps=1e-6).hyperparam.get_dict())
    return step_coefficients(hp, 3)


def batch_of(rows: list[Row], c: Coefficients) -> MultiTensorStep:
    steps = [step_of("p", *row[:4], None, c) for row in rows]
    halves = [row.half for row in rows]
    batch = MultiTensorStep(ArraySource(steps, halves), steps, halves)
    assert batch.refresh([c])
    return batch


@pytest.fixture(params=engine.built_instruction_sets())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param not in _cpu_features.supported():
        pytest.skip(f"this CPU does not run {request.param}")
    monkeypatch.setattr(engine, "_kernels", engine._load(request.param))
    monkeypatch.setattr(_threads, "SERIAL_BELOW", 0)
    return str(request.param)


def check(rows: list[Row], write: bool, n_threads: int) -> None:
    """Compare sums after every operation, then the step and what it writes."""
    c = coefficients()
    theirs = [copied(row) for row in rows]
    batch = batch_of(rows, c)
    programs = [row.program for row in rows]
    fastadam.set_num_threads(n_threads)
    try:
        assert batch.program(programs, range(len(rows)), write)
        for n in (0, 1, 2, 6):
            same_sums(batch.sums_of_squares_after(n), [after(row, n) for row in theirs])
        counts = [i % 4 for i in range(len(rows))]
        found = batch.sums_of_squares_after(counts)
        same_sums(found, [after(row, n) for row, n in zip(theirs, counts, strict=True)])
        batch.step({}, {}, ())
    finally:
        fastadam.set_num_threads(None)
    for mine, row in zip(rows, theirs, strict=True):
        step_in_numpy(row, c, write)
        for ours, expected in zip(mine[:5], row[:5], strict=True):
            same(ours, expected)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("name", OPS)
@np.errstate(all="ignore")
def test_each_operation(name: str, write: bool, case: Any) -> None:
    random = np.random.default_rng(3)
    for kind in [*KINDS, (F8, F8, None)]:
        with case(kind=kind):
            programs = [[op, op] for op in OPS[name]]
            if write and kind[1] in (F2, BF) and name.startswith("divide"):
                # is refused
                continue
            sizes = (1, 385, 513, 4097)
            rows = [make(random, n, kind, program) for n in sizes for program in programs]
            check(rows, write, 1)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@np.errstate(all="ignore")
def test_random_programs(n_threads: int, case: Any) -> None:
    for seed in range(6):
        random = np.random.default_rng(100 * n_threads + seed)
        write = bool(seed % 2)
        pool = [op for name in OPS for op in OPS[name] if not (write and op.kind == DIVIDE)]
        kinds = [(F8, F8, None)] if seed % 3 == 2 else KINDS
        rows = []
        for _ in range(20):
            program = [pool[i] for i in random.integers(0, len(pool), random.integers(0, 7))]
            kind = kinds[random.integers(len(kinds))]
            n = int(random.choice([0, 1, 17, 384, 1000, 4097, 9000]))
            rows.append(make(random, n, kind, program))
        with case(seed=seed):
            check(rows, write, n_threads)


@pytest.mark.usefixtures("isa")
@np.errstate(all="ignore")
def test_a_quotient_in_float32_is_written_in_its_place() -> None:
    random = np.random.default_rng(1)
    program = [Op(DIVIDE, 37.5), Op(ADD, 0.1), Op(MULTIPLY, b=0.5), Op(CLIP, -0.1, 0.1)]
    check([make(random, n, (F4, F4, None), program) for n in (5, 3000)], True, 2)
    check([make(random, n, (F8, F8, None), program) for n in (5, 3000)], True, 2)


@pytest.mark.usefixtures("isa")
@np.errstate(all="ignore")
def test_written_apart_and_nothing_around() -> None:
    random = np.random.default_rng(2)
    for kind in [*KINDS, (F8, F8, None)]:
        for program in ([Op(ADD, 0.1), Op(CLIP, -0.3, 0.3)], [Op(ROUND)], [Op(DIVIDE, 4.0)]):
            for n in (1, 5, 383, 513, 1025):
                row, c = make(random, n, kind, program), coefficients()
                theirs = copied(row)
                batch = batch_of([row], c)
                memory = np.full(n + 64, 3, row.g.dtype)
                out = memory[32 : 32 + n]
                where = np.array([out.ctypes.data], np.uintp)
                batch._on_cpu[0].set_program([[], program], 1, where)
                batch.step({}, {}, ())
                same(out, after(theirs).astype(out.dtype))
                same(row.g, theirs.g)
                step_in_numpy(theirs, c, False)
                same(row.p, theirs.p)
                assert np.all(memory[:32].astype(float) == 3)
                assert np.all(memory[32 + n :].astype(float) == 3)


@pytest.mark.usefixtures("isa")
@np.errstate(all="ignore")
def test_without_a_step_nothing_else_changes() -> None:
    random = np.random.default_rng(4)
    for kind in [*KINDS, (F8, F8, None)]:
        row, c = make(random, 1000, kind, [Op(ADD, 0.1, 0.3)]), coefficients()
        theirs = copied(row)
        batch = batch_of([row], c)
        table = batch._on_cpu[0]
        table.table["step"] = False
        table.set_program([row.program], 0, table.table["g"])
        batch.step({}, {}, ())
        same(row.g, after(theirs).astype(row.g.dtype))
        for ours, expected in zip((row.p, *row[2:5]), (theirs.p, *theirs[2:5]), strict=True):
            same(ours, expected)


@pytest.mark.usefixtures("isa")
@np.errstate(all="ignore")
def test_a_kept_batch() -> None:
    random, c = np.random.default_rng(5), coefficients()
    kinds = [(F4, F4, None), (F4, F2, None), (F8, F8, None), (F4, F4, None)]
    programs = [
        [Op(ADD, 0.1), Op(ROUND)],
        [Op(DIVIDE, 16.0), Op(CLIP, -0.2, 0.2)],
        [Op(ADD_SIGN, 0.1), Op(ROUND), Op(MULTIPLY, b=0.5), Op(ROUND)],
    ]
    rows = [make(random, 600 + i, kind, []) for i, kind in enumerate(kinds)]
    theirs = [copied(row) for row in rows]
    batch = batch_of(rows, c)
    # one for all, one for each, then nothing again
    for which in (0, [1, 0, 2, 1], [2, 2, 1, 0], None):
        assert batch.refresh([c])
        if which is None:
            batch.leave_gradients()
            numbers: Any = []
        else:
            assert batch.program(programs, which, which != [2, 2, 1, 0])
            numbers = [which] * 4 if isinstance(which, int) else which
        own = [programs[k] for k in numbers] or [[]] * 4
        theirs = [row._replace(program=program) for row, program in zip(theirs, own, strict=True)]
        for n in (0, 1, 2, 9):
            same_sums(batch.sums_of_squares_after(n), [after(row, n) for row in theirs])
        for each in ([1, 0, 2, 3], [0, 9, 1, 2]):
            expected = [after(row, n) for row, n in zip(theirs, each, strict=True)]
            same_sums(batch.sums_of_squares_after(each), expected)
        same_sums(batch.sums_of_squares(), [after(row, 0) for row in theirs])
        batch.step({}, {}, ())
        for mine, row in zip(rows, theirs, strict=True):
            step_in_numpy(row, c, which != [2, 2, 1, 0])
            for ours, expected in zip(mine[:4], row[:4], strict=True):
                same(ours, expected)


def test_what_a_batch_cannot_do() -> None:
    random, c = np.random.default_rng(6), coefficients()
    program = [[Op(ADD, 0.1)], [Op(DIVIDE, 2.0), Op(ADD, 0.1)]]
    half = batch_of([make(random, 9, kind, []) for kind in KINDS[:2]], c)
    assert half.program(program, 0, True)
    assert half.program(program, 1, False)
    assert not half.program(program, 1, True)
    assert half.program(program, [1, 0], True)
    assert not half.program(program, [0, 1], True)
    first, second = make(random, 9, KINDS[0], []), make(random, 8, KINDS[0], [])
    shared = batch_of([first, second._replace(g=first.g[1:])], c)
    assert shared.program(program, [0, 1], False)
    assert not shared.program(program, [0, 1], True)
    aliased = batch_of([first._replace(g=first.p)], c)
    # is read from a copy
    assert aliased.program(program, 0, False)
    assert not aliased.program(program, 0, True)
    third = make(random, 9, KINDS[0], [])
    strided = batch_of([third._replace(**{k: getattr(third, k)[::2] for k in "pgmv"})], c)
    assert not strided.program(program, 0, False)
    somewhere = batch_of([first], c)
    somewhere.on_gpu = [SimpleNamespace()]
    assert not somewhere.program(program, 0, False)


def test_a_refusal_changes_nothing() -> None:
    random, c = np.random.default_rng(7), coefficients()
    rows = [make(random, 50, (F8, F8, None), []), make(random, 50, (F4, F2, None), [])]
    batch = batch_of(rows, c)
    before = [copied(row) for row in rows]
    assert not batch.program([[Op(DIVIDE, 2.0)]], 0, True)
    with np.errstate(all="ignore"):
        batch.step({}, {}, ())
        for mine, row in zip(rows, before, strict=True):
            step_in_numpy(row, c, False)
            for ours, expected in zip(mine[:4], row[:4], strict=True):
                same(ours, expected)


def test_the_row_of_an_operation_has_no_padding() -> None:
    assert OP.itemsize == 3 * np.dtype(np.intp).itemsize


def test_a_new_table_does_nothing_to_gradients() -> None:
    row = make(np.random.default_rng(8), 5, KINDS[0], [])
    steps = [step_of("p", *row[:4], None, c := coefficients())]
    table = Table(steps, [0], {id(c): 0}, ArraySource(steps, []))
    assert table.ops.size == 0
    assert [table.table[name][0] for name in ("first_op", "n_ops", "step", "out")] == [0, 0, 1, 0]
