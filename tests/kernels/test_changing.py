"""What hooks do to gradients: the bits of NumPy's expressions, in one call."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.kernels.changing import ADD, ADD_SIGN, CLIP, MULTIPLY, change_gradients
from fastadam.kernels.cpu import _cpu_features, _threads, engine

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs ml_dtypes, which has bfloat16")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FORMULAS: dict[int, Any] = {
    ADD: lambda p, g, a, b: (g + a * p) * b,
    ADD_SIGN: lambda p, g, a, b: g + a * np.sign(p),
    # of a zero and a zero as its bound NumPy 1 takes the bound, as the loops, and NumPy 2 the other
    CLIP: lambda p, g, a, b: np.where(g == a, a, np.where(g == b, b, np.clip(g, a, b))),
    MULTIPLY: lambda p, g, a, b: g * b,
}
PAIRS = [
    *itertools.product([np.dtype("f4"), np.dtype("f2"), BFLOAT16], repeat=2),
    (np.dtype("f8"), np.dtype("f8")),
]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1e-7, 3e38, 65504.0, -0.7, 0.7]


def some(seed: int, shape: Any, dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape)
    if array.size > 40:
        array.flat[:: array.size // 40] = rng.choice(SPECIAL, array.flat[:: array.size // 40].size)
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def expected(change: int, p: np.ndarray, g: np.ndarray, a: float, b: float) -> np.ndarray:
    computing = np.dtype("f8") if g.dtype == "f8" else np.dtype("f4")
    with np.errstate(all="ignore"):
        wide = FORMULAS[change](
            p.astype(computing), g.astype(computing), computing.type(a), computing.type(b)
        )
        return np.asarray(wide.astype(g.dtype))


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Compare every bit; of NaN only that it is one."""
    nan = np.isnan(theirs.astype(np.float64))
    assert np.array_equal(np.isnan(ours.astype(np.float64)), nan)
    assert ours[~nan].tobytes() == theirs[~nan].tobytes()


@pytest.fixture(params=engine.built_instruction_sets())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param not in _cpu_features.supported():
        pytest.skip(f"this CPU does not run {request.param}")
    monkeypatch.setattr(engine, "_kernels", engine._load(request.param))
    return str(request.param)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("change", FORMULAS)
@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
def test_the_bits_of_numpy(
    change: int, n_threads: int, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    monkeypatch.setattr(_threads, "SERIAL_BELOW", 1000)
    for dtypes in PAIRS:
        with case(dtypes=dtypes):
            check_bits_of_numpy(change, dtypes, n_threads)


def check_bits_of_numpy(change: int, dtypes: tuple[Any, Any], n_threads: int) -> None:
    shapes: list[Any] = [(), (1,), (7,), (0,), (31, 33), (1024,), (4099,)]
    numbers = [(-0.3 + i / 7, 0.2 + i / 5) for i in range(len(shapes))]
    pairs = [(some(i, s, dtypes[0]), some(i + 50, s, dtypes[1])) for i, s in enumerate(shapes)]
    wanted = [
        expected(change, p, g, *numbers) for (p, g), numbers in zip(pairs, numbers, strict=True)
    ]
    before = [p.tobytes() for p, _ in pairs]
    fastadam.set_num_threads(n_threads)
    try:
        assert change_gradients(change, pairs, numbers) == []
    finally:
        fastadam.set_num_threads(None)
    for (_, g), each in zip(pairs, wanted, strict=True):
        same(g, each)
    assert before == [p.tobytes() for p, _ in pairs]


@pytest.mark.parametrize("change", FORMULAS)
def test_types_together(change: int) -> None:
    pairs = [(some(i, 70, p), some(i + 9, 70, g)) for i, (p, g) in enumerate(PAIRS)]
    numbers = [(0.1 * i, 0.3 * i) for i in range(len(pairs))]
    wanted = [expected(change, *pair, *n) for pair, n in zip(pairs, numbers, strict=True)]
    assert change_gradients(change, pairs, numbers) == []
    for (_, g), each in zip(pairs, wanted, strict=True):
        same(g, each)


def test_what_is_left_as_it_is() -> None:
    p, g = some(1, (6, 8), "f4"), some(2, (6, 8), "f4")
    read_only = g.copy()
    read_only.flags.writeable = False
    bytes_of_one = np.zeros(4 * 48 + 1, np.uint8)
    misaligned = bytes_of_one[1:].view(np.float32).reshape(6, 8)
    pairs = {
        "other layout": (np.asfortranarray(p), g.copy()),
        "strided": (p[:, ::2], g.copy()[:, ::2]),
        "read-only": (p, read_only),
        "misaligned": (p, misaligned),
        "byte-swapped": (p, g.astype(">f4")),
        "wider parameter": (p.astype("f8"), g.copy()),
        "narrower parameter": (p, g.astype("f8")),
        "longer": (p.astype(np.longdouble), g.astype(np.longdouble)),
        "fine": (p, g.copy()),
        "fine, too": (np.asfortranarray(p), np.asfortranarray(g)),
    }
    before = {key: each.tobytes() for key, (_, each) in pairs.items()}
    left = change_gradients(MULTIPLY, list(pairs.values()), [(0.0, 3.0)] * len(pairs))
    assert sorted(left) == list(range(8))
    changed = {key for key, (_, each) in pairs.items() if each.tobytes() != before[key]}
    assert changed == {"fine", "fine, too"}


def test_nothing_around_a_gradient_is_written() -> None:
    for dtype in (np.dtype("f4"), np.dtype("f2"), BFLOAT16, np.dtype("f8")):
        for n in (1, 5, 16, 1023, 1025):
            memory = np.full(n + 64, 3, dtype)
            change_gradients(ADD, [(np.ones(n, dtype), memory[32 : 32 + n])], [(2.0, 4.0)])
            assert np.all(memory[32 : 32 + n].astype(float) == 20)
            assert np.all(memory[:32].astype(float) == 3)
            assert np.all(memory[32 + n :].astype(float) == 3)


def test_subnormal_numbers_stay() -> None:
    g = np.full(100, 1e-40, np.float32)
    change_gradients(MULTIPLY, [(g, g.copy())], [(0.0, 0.5)])
    other = g.copy()
    change_gradients(MULTIPLY, [(g, other)], [(0.0, 0.5)])
    assert np.all(other == np.float32(1e-40) * np.float32(0.5))
    assert np.all(other > 0)


def test_nothing_to_do() -> None:
    assert change_gradients(ADD, [], []) == []
