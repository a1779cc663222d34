"""The gradient pass: its sums in the one defined order, bit for bit, and the true gradients."""

from __future__ import annotations

import importlib
import math
import struct
import threading
from fractions import Fraction

import numpy as np
import pytest

from fastadam.kernels.cpu import _cpu_features, _threads, engine, gradient_table
from fastadam.kernels.cpu._tensors import Squares
from fastadam.kernels.dtypes import computing_dtype
from fastadam.kernels.reference import squares_reference, tree_sum
from fastadam.kernels.sums import global_norm, sum_of_squares, unscale

MODULES = {"baseline": "_step", "avx2": "_step_avx2", "avx512": "_step_avx512"}
SIZES = (0, 1, 2, 3, 7, 15, 17, 255, 256, 257, 1023, 4095, 4096, 4097, 8192, 12_289, 100_001)
FAST = ("float16", "bfloat16", "float32", "float64")
OTHERS = ("longdouble", ">f2", ">f4", ">f8")
TINY = np.finfo(np.float32).tiny


def dtype_of(name: str) -> np.dtype:
    """The dtype of a name, or a skip where bfloat16 is not to be had."""
    if name == "bfloat16":
        reason = "needs ml_dtypes, which has bfloat16"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


@pytest.fixture(params=MODULES)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every instruction set that this machine runs, in turn; threads for arrays of any size."""
    name = request.param
    if name not in engine.built_instruction_sets() or name not in _cpu_features.supported():
        pytest.skip(f"{name} is not built, or this CPU does not run it")
    module = importlib.import_module(f"fastadam.kernels.cpu.{MODULES[name]}")
    monkeypatch.setattr(engine, "_kernels", module)
    monkeypatch.setattr(_threads, "SERIAL_BELOW", 0)
    monkeypatch.setattr(_threads, "number", lambda: 3)
    return name


def use_threads(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Make every pass run on n threads."""
    monkeypatch.setattr(_threads, "number", lambda: n)


def some_array(n: int, name: str, seed: int = 0) -> np.ndarray:
    """Numbers of both signs over five orders of magnitude, of which every seventh is 0."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(n) * 10.0 ** random.uniform(-3, 2, n)
    x[::7] = 0
    return x.astype(dtype_of(name))


def bits(x: float) -> bytes:
    """The bits of a float64; any NaN is the same."""
    return b"NaN" if math.isnan(x) else struct.pack("d", x)


def same_sums(ours: list[float], expected: list[float]) -> None:
    """Compare lists of floats bit for bit."""
    assert [bits(x) for x in ours] == [bits(x) for x in expected], (ours, expected)
    assert all(type(x) is float for x in ours)


def true_gradient(g: np.ndarray, scale: float) -> np.ndarray:
    """The quotient in NumPy, subnormal float32 flushed before and after."""
    x = g.astype(computing_dtype(g.dtype) or np.float64)
    with np.errstate(all="ignore"):
        if x.dtype == np.float64:
            return x / scale
        x = np.where(abs(x) < TINY, np.copysign(np.float32(0), x), x) / np.float32(scale)
        return np.where(abs(x) < TINY, np.copysign(np.float32(0), x), x)


def same_array(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Compare every bit but the sign and payload of NaN."""
    assert mine.dtype == theirs.dtype
    np.testing.assert_array_equal(mine, theirs)
    numbers = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(mine[numbers]), np.signbit(theirs[numbers]))


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@pytest.mark.parametrize("name", [*FAST, *OTHERS])
@pytest.mark.usefixtures("isa")
def test_every_size_and_start(monkeypatch: pytest.MonkeyPatch, name: str, n_threads: int) -> None:
    use_threads(monkeypatch, n_threads)
    for n in SIZES if n_threads == 1 else SIZES[-4:]:
        for start in (0, 1, 3) if n_threads == 1 else (n_threads,):
            g = some_array(n + start, name, seed=n)[start:]
            same_sums(sum_of_squares([g]), [squares_reference(g)])
            [true], sums = unscale([g], [37.5])
            same_sums(sums, [squares_reference(g, 37.5)])
            same_array(true, true_gradient(g, 37.5))


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@pytest.mark.usefixtures("isa")
def test_many_arrays_in_one_call(monkeypatch: pytest.MonkeyPatch, n_threads: int) -> None:
    pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16")
    use_threads(monkeypatch, n_threads)
    sizes = [0, 5000, 0, 1, 4096, 0, 0, 8193, 17, 100_001, 0, 4095, 3, 0]
    names = [*FAST, *OTHERS]
    arrays = [
        some_array(n, name, seed=i)
        for i, n in enumerate(sizes)
        for name in (names[i % len(names)], names[(i + 3) % len(names)])
    ]
    scales = [1.5 + 7 * i for i in range(len(arrays))]
    before = [array.copy() for array in arrays]
    same_sums(sum_of_squares(arrays), [squares_reference(g) for g in arrays])
    true, sums = unscale(arrays, scales)
    expected = [squares_reference(g, scale) for g, scale in zip(arrays, scales, strict=True)]
    same_sums(sums, expected)
    for mine, g, scale in zip(true, arrays, scales, strict=True):
        same_array(mine, true_gradient(g, scale))
    for array, old in zip(arrays, before, strict=True):
        same_array(array, old)


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
    "broadcast": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "misaligned": misaligned,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*FAST, *OTHERS])
@pytest.mark.usefixtures("isa")
def test_layouts(name: str, layout: str) -> None:
    g = LAYOUTS[layout](some_array(23 * 19 * 17, name).reshape(23, 19, 17))
    g.flags.writeable = False
    before = g.copy()
    same_sums(sum_of_squares([g]), [squares_reference(g)])
    [true], sums = unscale([g], [0.3])
    same_sums(sums, [squares_reference(g, 0.3)])
    same_array(true, true_gradient(g, 0.3))
    same_array(g, before)
    assert not np.shares_memory(true, g)
    assert true.flags.writeable


@pytest.mark.parametrize("name", FAST)
def test_the_layout_of_the_true_gradient_is_that_of_the_gradient(name: str) -> None:
    """So that the step finds both in one dense layout."""
    for order in "CF":
        g = np.array(some_array(60, name).reshape(3, 4, 5), order=order)
        [true], _ = unscale([g], [2.0])
        assert true.flags[f"{order}_CONTIGUOUS"]


def tree(numbers: list[float]) -> float:
    """The same tree from its top: the left part is the greatest full tree of which more is left."""
    if len(numbers) < 2:
        return numbers[0] if numbers else 0.0
    left = 1 << (len(numbers) - 1).bit_length() - 1
    return tree(numbers[:left]) + tree(numbers[left:])


def chunk_sum(numbers: list[float]) -> float:
    """The sum of squares of one chunk, element by element, in Python's own floats."""
    lanes = [0.0] * 256
    for i, x in enumerate(numbers):
        lanes[i % 256] += x * x
    width = 128
    while width:
        lanes = [lanes[i] + lanes[i + width] for i in range(width)]
        width //= 2
    return lanes[0]


@pytest.mark.parametrize("n_chunks", [2, 3, 5, 7, 11, 30])
@pytest.mark.usefixtures("isa")
def test_the_order_is_as_it_is_told(n_chunks: int) -> None:
    g = some_array(4096 * (n_chunks - 1) + 900, "float64", seed=n_chunks)
    chunks = [chunk_sum(g[k : k + 4096].tolist()) for k in range(0, g.size, 4096)]
    assert len(chunks) == n_chunks
    total = tree(chunks)
    same_sums([squares_reference(g), *sum_of_squares([g])], [total, total])


def test_another_order_gives_other_bits() -> None:
    """So that the tests of the order would notice."""

    def by_halves(numbers: list[float]) -> float:
        half = len(numbers) // 2
        return (
            by_halves([numbers[i] + numbers[i + half] for i in range(half)]) if half else numbers[0]
        )

    def in_a_row(numbers: list[float]) -> float:
        total = 0.0
        for number in numbers:
            total += number
        return total

    random = np.random.default_rng(3)
    some = [(random.standard_normal(32) ** 2).tolist() for _ in range(50)]
    ours = [tree(numbers) for numbers in some]
    for other in (by_halves, in_a_row, lambda numbers: tree(numbers[1:] + numbers[:1])):
        same = sum(other(numbers) == total for numbers, total in zip(some, ours, strict=True))
        assert same < 40


@pytest.mark.usefixtures("isa")
def test_the_tree_of_any_number_of_leaves() -> None:
    random = np.random.default_rng(11)
    for n in (*range(35), 63, 64, 65, 127, 1000, 4097):
        numbers = (random.standard_normal(n) ** 2).tolist()
        same_sums([tree_sum(numbers), engine.tree_sum(numbers)], [tree(numbers)] * 2)
        for special in (math.inf, math.nan, 0.0):
            if n:
                numbers[n // 2] = special
                same_sums([tree_sum(numbers), engine.tree_sum(numbers)], [tree(numbers)] * 2)


@pytest.mark.parametrize("n_chunks", [1, 2, 4, 8])
@pytest.mark.usefixtures("isa")
def test_parts_of_whole_subtrees_have_the_sum_of_the_whole(n_chunks: int) -> None:
    """An array may be cut at multiples of a power of 2 of chunks."""
    g = some_array(4096 * 27 + 5, "float32")
    parts = [g[k : k + 4096 * n_chunks] for k in range(0, g.size, 4096 * n_chunks)]
    same_sums([engine.tree_sum(sum_of_squares(parts))], sum_of_squares([g]))


def test_the_norm_of_many_arrays_is_a_tree_of_their_sums() -> None:
    random = np.random.default_rng(5)
    arrays = [random.standard_normal(n) for n in range(1, 60)]
    sums = [squares_reference(array) for array in arrays]
    assert global_norm(arrays) == math.sqrt(tree(sums))
    in_a_row = 0.0
    for each in sums:
        in_a_row += each
    assert tree(sums) != in_a_row


# What one addition, or one square that is rounded, may change a sum by, relative to it.
ROUNDING = 2.0**-53


@pytest.mark.parametrize("name", FAST)
@pytest.mark.usefixtures("isa")
def test_near_the_exact_sum(name: str) -> None:
    """15 additions in a lane, 8 when the lanes fold, one a level of the tree, and the square."""
    for n in (1, 255, 4097, 100_001):
        g = some_array(n, name, seed=n + 1)
        exact = sum((Fraction(x) ** 2 for x in g.astype(float).tolist()), Fraction(0))
        levels = (-(-n // 4096) - 1).bit_length()
        bound = (15 + 8 + levels + (name == "float64")) * ROUNDING
        [ours] = sum_of_squares([g])
        assert abs(Fraction(ours) - exact) <= bound * exact
        assert global_norm([g]) == pytest.approx(math.sqrt(exact), rel=bound, abs=0)


@pytest.mark.usefixtures("isa")
def test_a_long_sum_is_as_near() -> None:
    """Of a thousand chunks, where sums one after the other could be 40 times as far off."""
    x = np.float32(0.1)
    [ours] = sum_of_squares([np.full(4096 * 1000, x)])
    exact = 4096 * 1000 * Fraction(float(x)) ** 2
    assert abs(Fraction(ours) - exact) <= (15 + 8 + 10) * ROUNDING * exact


@pytest.mark.usefixtures("isa")
def test_squares_that_the_type_itself_cannot_hold() -> None:
    half = np.full(3, 300, np.float16)  # 300**2 is infinite in float16
    assert sum_of_squares([half]) == [270_000.0]
    huge = np.full(3, 1e30, np.float32)
    assert sum_of_squares([huge]) == [3 * float(np.float32(1e30)) ** 2]
    small = np.full(3, 1e-30, np.float32)
    assert sum_of_squares([small])[0] == pytest.approx(3e-60, rel=1e-6)
    largest = np.full(5000, np.finfo(np.float32).max)
    assert math.isfinite(sum_of_squares([largest])[0])
    # the quotient of a half type is not rounded to it, nor lost
    [true], [square] = unscale([np.full(4, 2.0**-24, np.float16)], [65536.0])
    np.testing.assert_array_equal(true, np.float32(2.0**-40))
    assert square == 4 * 2.0**-80
    [true], _ = unscale([np.full(4, 60000, np.float16)], [1 / 1024])
    np.testing.assert_array_equal(true, np.float32(60000 * 1024))


@pytest.mark.parametrize("where", [0, 255, 256, 4096, 9999])
@pytest.mark.parametrize("name", FAST)
@pytest.mark.usefixtures("isa")
def test_nan_and_infinity_reach_the_sum(name: str, where: int) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        g = some_array(10_000, name)
        good = some_array(10_000, name, seed=1)
        g[where] = bad
        for sums in (sum_of_squares([good, g, good]), unscale([good, g, good], [3.0] * 3)[1]):
            assert math.isnan(sums[1]) if np.isnan(bad) else sums[1] == math.inf
            assert math.isfinite(sums[0])
            assert math.isfinite(sums[2])
        [true], _ = unscale([g], [-3.0])
        same_array(true, true_gradient(g, -3.0))
        norm_ = global_norm([good, g])
        assert math.isnan(norm_) if np.isnan(bad) else norm_ == math.inf


@pytest.mark.usefixtures("isa")
def test_subnormal_float32_count_as_zero() -> None:
    tiny = np.finfo(np.float32).tiny
    below = np.nextafter(tiny, np.float32(0))
    assert sum_of_squares([np.full(1000, below), np.full(1000, -below)]) == [0.0, 0.0]
    assert sum_of_squares([np.full(2, tiny)]) == [2 * float(tiny) ** 2]
    # so do quotients that would be subnormal, and the sign stays
    g = np.array([tiny, -tiny, 4 * tiny, -0.0, 0.0, below, -below], np.float32)
    [true], [square] = unscale([g], [2.0])
    np.testing.assert_array_equal(true, [0, 0, 2 * tiny, 0, 0, 0, 0])
    np.testing.assert_array_equal(np.signbit(true), np.signbit(g))
    assert square == 4 * float(tiny) ** 2
    # float16 has subnormal numbers that are none in float32; those of float64 are kept
    assert sum_of_squares([np.full(2, 2.0**-24, np.float16)]) == [2 * 2.0**-48]
    [true], _ = unscale([np.array([1e-310])], [4.0])
    np.testing.assert_array_equal(true, 1e-310 / 4)


@pytest.mark.usefixtures("isa")
def test_subnormal_bfloat16_count_as_zero() -> None:
    g = np.array([1e-39, -1e-39, 3.0], dtype_of("bfloat16"))
    assert g[0] != 0
    assert sum_of_squares([g, g[:2]]) == [9.0, 0.0]
    [true], sums = unscale([g[:2]], [1e-3])
    same_array(true, np.array([0.0, -0.0], np.float32))
    assert sums == [0.0]


SCALES = [1.0, 65536.0, 1000.0, 1 / 3, -7.0, 1e-30, 3.3e38, math.inf]
POWERS = [2.0**-130, 2.0**-98, 0.5, 2.0**98, 2.0**99, 2.0**127]


@pytest.mark.parametrize("scale", [*SCALES, *POWERS])
@pytest.mark.parametrize("name", FAST)
@pytest.mark.usefixtures("isa")
def test_any_scale(name: str, scale: float) -> None:
    """The quotient itself: only of powers of 2 a product with the inverse has the same bits."""
    g = some_array(5000, name)
    [true], sums = unscale([g], [scale])
    same_array(true, true_gradient(g, scale))
    same_sums(sums, [squares_reference(g, scale)])


def test_zero_dim_and_lists_of_nothing() -> None:
    assert sum_of_squares([]) == []
    assert unscale([], []) == ([], [])
    assert global_norm([]) == 0.0
    assert sum_of_squares([np.float32(3).reshape(())]) == [9.0]
    [true], sums = unscale([np.array(3.0)], [2.0])
    assert true.shape == ()
    assert (float(true), sums) == (1.5, [2.25])


def test_the_global_norm_is_of_all_arrays_together() -> None:
    arrays = [some_array(n, name) for n, name in [(500, "float32"), (0, "float16"), (77, "f8")]]
    exact = math.sqrt(math.fsum(float(x) ** 2 for array in arrays for x in array))
    assert global_norm(arrays) == pytest.approx(exact, rel=1e-12)
    assert global_norm(arrays, sum_of_squares(arrays)) == global_norm(arrays)
    # known sums are not computed again
    assert global_norm(arrays, [9.0, 0.0, 16.0]) == 5.0


def test_a_global_norm_whose_square_float64_cannot_hold() -> None:
    arrays = [np.array([3e200, 0.0]), np.array([-4e200]), np.ones(3, np.float32), np.zeros(0)]
    assert sum_of_squares(arrays)[0] == math.inf
    assert global_norm(arrays) == pytest.approx(5e200, rel=1e-15)
    assert global_norm([np.array([1e200, np.inf])]) == math.inf
    assert math.isnan(global_norm([np.array([1e200, np.nan])]))
    assert global_norm([np.full(16, 1e308)]) == math.inf


def test_small_sums_are_made_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    class Recorder:
        """Stands in for the compiled pass."""

        def __init__(self, *arguments: object) -> None:
            """Take what the pass takes."""

        @staticmethod
        def run(n_threads: int) -> list[float]:
            """Remember."""
            used.append(n_threads)
            return [0.0, 0.0]

    monkeypatch.setattr(gradient_table, "Squares", Recorder)
    use_threads(monkeypatch, 5)
    for dtype in ("f4", "f8"):
        for n in (_threads.SERIAL_BELOW - 1, _threads.SERIAL_BELOW):
            sum_of_squares([np.zeros(n // 2, dtype), np.zeros(n - n // 2, dtype)])
    assert used == [1, 5, 1, 5]


@pytest.mark.usefixtures("isa")
def test_nothing_but_the_quotients_is_written() -> None:
    loop = engine.squares_loop(np.dtype(np.float32))
    for n in (1, 7, 63, 255, 4097):
        memory = np.full(n + 64, 12288, np.float32)
        g = some_array(n, "float16")
        table = np.zeros(1, gradient_table.GRADIENT)
        table["g"], table["out"] = g.ctypes.data, memory[32:].ctypes.data
        table["scale"], table["n"], table["g_type"] = 3.0, n, 1
        sums = np.full(2, 99.0)
        Squares(table, sums[:-1], np.empty(1), loop).run(2)
        same_array(memory[32 : 32 + n], true_gradient(g, 3.0))
        assert np.all(memory[:32] == 12288)
        assert np.all(memory[32 + n :] == 12288)
        assert sums[-1] == 99


def test_the_callers_floating_point_mode_is_left_alone() -> None:
    def compute() -> None:
        sum_of_squares([np.ones(100_000, np.float32)])
        results.append(np.float32(1e-30) * np.float32(1e-10) != 0)

    results: list[bool] = []
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    compute()
    assert results == [True, True]


def test_row_layout_has_no_padding() -> None:
    assert gradient_table.GRADIENT.itemsize == 10 * np.dtype(np.intp).itemsize
    assert (gradient_table.CHUNK, gradient_table.GROUP) == (4096, 4)
