"""A load changes everything or nothing, wherever it is interrupted and whoever raises."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Chain, Link
from fastadam.serializers import DictionarySerializer, NpzDeserializer, load_npz, save_npz

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from full_optimizer import REFUSED, doors, everything, make
from tracing import counted, interrupted

EVERY = 1 if os.environ.get("FASTADAM_CAMPAIGN") else 97
# what a MemoryError in a reader, or in the middle of a check, may be said to be
ALSO = (ValueError, OSError)
# a file that is interrupted between being opened and being held is closed by its finalizer
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEFT_OPEN
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_ctrl_c_at_any_line_of_a_load(tmp_path: Path, error: type[BaseException]) -> None:
    first = {KeyboardInterrupt: 0, MemoryError: EVERY // 2}[error]
    for name, (save, load) in doors(tmp_path).items():
        save(make(3))
        other = make(6)
        before = everything(other)
        load(other)
        after = everything(other)
        assert before != after
        tried, n, opt, hit = {False: 0, True: 0}, first, make(6), True
        while hit:
            hit = interrupted(n, lambda: load(opt), error, ALSO)  # noqa: B023 - called at once
            now = everything(opt)
            assert now in (before, after), f"{name}: mixed at line {n}"
            tried[now == after] += 1
            opt = make(6) if now == after else opt
            n += EVERY
        assert n > 300, name
        assert all(tried.values()), name
        print(f"{name}, {error.__name__}: {tried[False]} before, {tried[True]} after")


@LEFT_OPEN
def test_ctrl_c_at_the_last_lines_of_a_load(tmp_path: Path) -> None:
    """Around the commit, every single line."""
    for name, (save, load) in doors(tmp_path).items():
        save(make(3))
        opt = make(6)
        before = everything(opt)
        lines = counted(lambda: load(opt))  # noqa: B023 - called at once
        after = everything(opt)
        for n in range(lines - 1, lines - 50, -1):
            opt = make(6) if everything(opt) == after else opt
            assert interrupted(n, lambda: load(opt), also=ALSO), n  # noqa: B023
            assert everything(opt) in (before, after), f"{name}: mixed at line {n}"


def test_a_setter_that_raises(tmp_path: Path) -> None:
    for name, (save, load) in doors(tmp_path).items():
        if name in ("load_npz", "load_hdf5"):
            continue  # without the link
        opt = make(3)
        opt.target.a._rate = REFUSED
        save(opt)
        other = make(6)
        before = everything(other)
        with pytest.raises(ZeroDivisionError, match="refused") as raised:
            load(other)
        assert everything(other) == before, name
        assert "nothing has been loaded" in "".join(raised.value.__notes__)


class Second(Link):
    """Its setter runs after another's, and raises when it is told to."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(w=2)
        self.w.array[...] = value
        self.seen: list[float] = []
        self._x = value
        self.register_persistent("x")

    @property
    def x(self) -> float:
        return self._x

    @x.setter
    def x(self, value: float) -> None:
        self.seen.append(value)
        if value == REFUSED:
            self._x = -1.0
            raise ValueError("no")
        self._x = value


class OwnSerialize(Link):
    """Reads and writes in one, into an array and attributes."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(w=2)
        self.w.array[...] = value
        self.table, self.words = np.full(3, value), {"a": value}

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        serializer("table", self.table)
        self.words["a"] = serializer("word", self.words["a"])


def test_what_ran_before_is_given_back() -> None:
    def chain(value: float) -> Any:
        return Chain(a=Second(value), b=OwnSerialize(value), c=Second(value))

    saved: dict[str, Any] = {}
    DictionarySerializer(saved).save(chain(5.0))
    saved["c/x"] = np.array(REFUSED)
    target = chain(1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            NpzDeserializer(saved).load(target)
        for link in target.children():
            assert link.w.array.tolist() == [1, 1]
        assert (target.a.x, target.c.x, target.b.words) == (1, 1, {"a": 1})
        assert target.b.table.tolist() == [1, 1, 1]
    assert target.a.seen == [5, 1, 5, 1]
    saved["c/x"] = np.array(5.0)
    NpzDeserializer(saved).load(target)
    assert (target.a.x, target.b.words, target.b.table.tolist()) == (5, {"a": 5}, [5, 5, 5])


class Slotted(OwnSerialize):
    """Keeps what it reads in slots, of which one is not set yet."""

    __slots__ = ("__hidden", "late", "level")

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(value)
        self.level, self.__hidden = value, value

    def serialize(self, serializer: Any) -> None:
        super().serialize(serializer)
        self.level = serializer("level", self.level)
        self.__hidden = self.late = self.level

    def state(self) -> tuple[Any, ...]:
        return self.level, self.__hidden, getattr(self, "late", None)


def test_slots_are_given_back() -> None:
    saved: dict[str, Any] = {}
    DictionarySerializer(saved).save(Chain(a=Slotted(5.0), c=Second(5.0)))
    target = Chain(a=Slotted(1.0), c=Second(1.0))
    with pytest.raises(ValueError, match="no"):
        NpzDeserializer(saved | {"c/x": np.array(REFUSED)}).load(target)
    assert target.a.state() == (1.0, 1.0, None)
    NpzDeserializer(saved).load(target)
    assert target.a.state() == (5.0, 5.0, 5.0)


def test_two_phases_of_users_classes() -> None:
    class Prepared(Link):
        def __init__(self) -> None:
            super().__init__(w=2)
            self.w.array[...] = 0
            self.seen = 0

        def serialize(self, serializer: Any) -> None:
            super().serialize(serializer)
            if not hasattr(serializer, "load"):
                serializer("seen", self.seen)

        def prepare_load(self, serializer: Any) -> Any:
            prepared = super().prepare_load(serializer)
            prepared.attribute(self, "seen", serializer("seen", self.seen))
            return prepared

    class Below(Prepared):
        """Knows nothing of two phases."""

        def serialize(self, serializer: Any) -> None:
            super().serialize(serializer)
            self.late = serializer("late", 0)

    def chain() -> Any:
        made = Chain(a=Prepared(), b=Below(), c=Link(W=2), d=Prepared())
        made.c.W.array[...] = 0
        # an object's own method counts as its class's
        made.d.calls = []
        made.d.serialize = lambda s: made.d.calls.append(s("seen", made.d.seen))
        return made

    saved = {"a/w": [1, 1], "a/seen": 2, "b/w": [3, 3], "b/seen": 4, "b/late": 5, "c/W": [6, 6]}
    saved["d/seen"] = 7
    target = chain()
    NpzDeserializer({key: np.array(value) for key, value in saved.items()}).load(target)
    assert (target.a.seen, target.a.w.array.tolist()) == (2, [1, 1])
    assert (target.b.seen, target.b.late, target.b.w.array.tolist()) == (4, 5, [3, 3])
    assert (target.c.W.array.tolist(), target.d.calls, target.d.seen) == ([6, 6], [7], 0)
    # what is missing is found before anybody is called
    del saved["c/W"]
    target = chain()
    with pytest.raises(KeyError, match="c/W"):
        NpzDeserializer({key: np.array(value) for key, value in saved.items()}).load(target)
    assert (target.a.seen, target.b.seen, target.d.calls) == (0, 0, [])


def test_arrays_of_a_mapping_stay_its_own() -> None:
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    saved: dict[str, Any] = {}
    DictionarySerializer(saved).save(opt)
    other = fastadam.Adam().setup({"w": np.ones(3)})
    NpzDeserializer(saved).load(other)
    state = opt.parameters["w"].update_rule.state
    for key, array in other.parameters["w"].update_rule.state.items():
        assert not np.shares_memory(array, state[key])
    lazy = Link(W=None)
    values = {"W": np.ones(3, np.float32)}
    NpzDeserializer(values).load(lazy)
    assert not np.shares_memory(lazy.W.array, values["W"])


def test_a_mapping_that_is_the_objects_own_values_in_another_order() -> None:
    link = Chain(a=Link(W=3), b=Link(W=3))
    link.a.W.array[...], link.b.W.array[...] = 1, 2
    swapped = {"a/W": link.b.W.array, "b/W": link.a.W.array}
    NpzDeserializer(swapped).load(link)
    assert (link.a.W.array.tolist(), link.b.W.array.tolist()) == ([2] * 3, [1] * 3)


def test_states_that_overlap_or_cannot_be_written_get_new_arrays(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    opt = fastadam.Adam().setup({"w": np.arange(6.0).reshape(2, 3)})
    opt.apply_gradients({"w": np.arange(6.0).reshape(2, 3)})
    fastadam.save(path, opt)
    memory = np.zeros(10)
    read_only = np.zeros((2, 3))
    read_only.flags.writeable = False
    states = {
        "one array": {"m": memory[:6].reshape(2, 3), "v": memory[:6].reshape(2, 3)},
        "overlapping": {"m": memory[:6].reshape(2, 3), "v": memory[3:9].reshape(2, 3)},
        "read-only": {"m": read_only, "v": np.zeros((2, 3))},
        "another dtype": {"m": np.zeros((2, 3), np.float32), "v": np.zeros((2, 3))},
        "byte-swapped": {"m": np.zeros((2, 3), ">f8"), "v": np.zeros((2, 3))},
        "strided": {"m": np.zeros((4, 6))[::2, ::-2], "v": np.zeros((3, 2)).T},
    }
    for name, state in states.items():
        other = fastadam.Adam().setup({"w": np.zeros((2, 3))})
        other.parameters["w"].update_rule._state = state
        fastadam.load(path, other)
        for key, array in other.parameters["w"].update_rule.state.items():
            expected = opt.parameters["w"].update_rule.state[key]
            assert np.array_equal(array, expected), (name, key)


def test_buffers() -> None:
    file = io.BytesIO()
    opt = make(3)
    save_npz(file, opt)
    other = make(6)
    file.seek(0)
    load_npz(file, other)
    assert (other.t, other.epoch) == (opt.t, opt.epoch)
