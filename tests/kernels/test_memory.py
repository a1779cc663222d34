"""Which arrays have elements in common: beside NumPy's exact answer for every two of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastadam
from fastadam.kernels import arrays as checks
from fastadam.kernels import memory

Array = np.ndarray[Any, Any]

INDICES = st.one_of(
    st.integers(0, 3),
    st.builds(slice, st.integers(0, 3), st.integers(2, 7), st.sampled_from([1, 1, 2, 3])),
    st.just(slice(None, None, -1)),
    st.just(slice(None)),
)


@st.composite
def views(draw: Any) -> list[Array]:
    """Views of one or two blocks of memory, in all kinds of layouts."""
    blocks = [np.zeros(240, np.uint8) for _ in range(draw(st.integers(1, 2)))]
    found = []
    for _ in range(draw(st.integers(2, 7))):
        view: Any = draw(st.sampled_from(blocks))
        view = view[draw(st.sampled_from([0, 0, 0, 8, 4])) :]
        view = view[: len(view) // 8 * 8].view(draw(st.sampled_from(["u1", "f2", "f4", "f8"])))
        width = draw(st.sampled_from([1, 2, 3, 4, 5, 6]))
        if len(view) % width == 0:
            view = view.reshape(-1, width)
            if len(view) % 2 == 0 and draw(st.booleans()):
                view = view.reshape(-1, 2, width)
        for axis in range(view.ndim):
            index = draw(INDICES)
            where = min(axis, view.ndim - 1)
            if view.ndim and (not isinstance(index, int) or index < view.shape[where]):
                view = view[(slice(None),) * where + (index,)]
        if draw(st.booleans()):
            view = np.asarray(view).T
        if draw(st.integers(0, 9)) == 0:
            view = np.broadcast_to(view, (2, *np.shape(view)))
        found.append(np.asarray(view))
    return found


def have_common(one: Array, other: Array) -> bool:
    return bool(np.shares_memory(one, other))


@settings(max_examples=400, deadline=None)
@given(views())
def test_arrays_of_different_clusters_have_nothing_in_common(found: list[Array]) -> None:
    clusters = list(memory.clusters(found))
    members = [i for cluster in clusters for i in cluster]
    assert len(members) == len(set(members))
    of = {i: n for n, cluster in enumerate(clusters) for i in cluster}
    for i, j in itertools.combinations(range(len(found)), 2):
        if have_common(found[i], found[j]):
            assert of[i] == of[j]


def test_elements_across_the_end_of_a_ring() -> None:
    """The bytes of one, 6 to 9 of every 8, go on where those of the other are, 0 and 1."""
    held = np.zeros(64, "u1")
    one = np.ndarray(4, "u4", held, 6, (8,))
    other = np.ndarray(4, "u2", held, 8, (8,))
    assert have_common(one, other)
    assert list(map(sorted, memory.clusters([one, other]))) == [[0, 1]]
    assert memory.first_sharing([one, other]) == (0, 1)


@settings(max_examples=300, deadline=None)
@given(views(), st.data())
def test_the_first_pair(found: list[Array], data: Any) -> None:
    free = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    order = sorted((*memory.extent(each), i) for i, each in enumerate(found) if each.size)
    for allowed in (None, free):
        pairs = [
            (j, i)
            for n, (_, _, i) in enumerate(order)
            for _, _, j in order[:n]
            if have_common(found[i], found[j]) and not (allowed and allowed[i] and allowed[j])
        ]
        assert memory.first_sharing(found, allowed) == (pairs[0] if pairs else None)


@settings(max_examples=300, deadline=None)
@given(views(), views(), st.booleans())
def test_arrays_that_share_with_what_is_written(
    one: list[Array], other: list[Array], mixed: bool
) -> None:
    both = [*one, *other] if mixed else one
    found, written = both[::2], both[1::2]
    expected = [i for i, a in enumerate(found) if any(have_common(a, w) for w in written)]
    assert memory.sharing(found, written) == expected


def columns(n: int) -> list[Array]:
    table = np.zeros((3, n))
    return [table[:, i] for i in range(n)]


def wide_columns(n: int) -> list[Array]:
    table = np.zeros((4, 3 * n), np.float32)
    return [table[:, 3 * i : 3 * i + 2 + i % 2] for i in range(n)]


def every_second(n: int) -> list[Array]:
    table = np.zeros((6, n // 2))
    return [table[i % 2 :: 2, i // 2] for i in range(n // 2 * 2)]


def tiles(n: int) -> list[Array]:
    side = int(n**0.5)
    table = np.zeros((2 * side, 3 * side))
    return [table[2 * i : 2 * i + 2, 3 * j : 3 * j + 3] for i in range(side) for j in range(side)]


def blocks_of_three_axes(n: int) -> list[Array]:
    side = int(n**0.5)
    table = np.zeros((3, 2 * side, side))
    return [table[:, 2 * i : 2 * i + 2, j] for i in range(side) for j in range(side)]


def turned(n: int) -> list[Array]:
    return [each[::-1] for each in columns(n)]


INTERLEAVED = [columns, wide_columns, every_second, tiles, blocks_of_three_axes, turned]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the exact comparisons."""
    counted = [0]
    exact = memory.shares_memory

    def counting(a: Any, b: Any) -> bool:
        counted[0] += 1
        return exact(a, b)

    monkeypatch.setattr(memory, "shares_memory", counting)
    return counted


@pytest.mark.parametrize("make", INTERLEAVED)
def test_interleaved_arrays_are_told_apart_without_a_comparison(
    make: Any, compared: list[int]
) -> None:
    found = make(400)
    assert memory.reach_into_another(found)
    assert memory.first_sharing(found) is None
    assert memory.sharing(found[::2], found[1::2]) == []
    checks.check_apart([(str(i), "m", each) for i, each in enumerate(found)])
    opt = fastadam.Adam().setup(found)
    opt.apply_gradients(make(400))
    assert compared == [0]
    # and two that have something in common are found
    more = [*found, found[7][..., :1] if found[7].ndim > 1 else found[7][:1]]
    assert memory.first_sharing(more) in ((7, len(found)), (len(found), 7))
    assert memory.sharing(more[-1:], found) == [0]
    assert compared[0] <= 6


def test_parameters_of_one_memory_are_not_compared_with_one_another(compared: list[int]) -> None:
    one = np.zeros(3)
    checks.check_apart([(str(i), "array", one[:]) for i in range(1000)])
    assert compared == [0]
    with pytest.raises(ValueError, match="its m and the array of parameter '0' share memory"):
        checks.check_apart([*((str(i), "array", one[:]) for i in range(5)), ("x", "m", one)])


def test_the_arrays_of_one_parameter_are_named_in_their_order() -> None:
    one = np.zeros(6)
    with pytest.raises(ValueError, match="parameter 'x': its m and its v share memory"):
        checks.check_apart([("x", "array", np.zeros(2)), ("x", "m", one[2:]), ("x", "v", one[:3])])


def test_arrays_without_elements_are_nowhere() -> None:
    empty = np.zeros((0, 3))
    assert memory.extent(empty) == (0, 0)
    assert list(memory.clusters([empty, empty, np.zeros(2)])) == []
    assert memory.first_sharing([empty, empty]) is None
    assert memory.first_sharing([]) is None
    assert memory.sharing([empty], [empty]) == memory.sharing([], []) == []
