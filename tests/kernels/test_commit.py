"""Effects: all or none, with nobody's code in between, and every reference accounted for."""

from __future__ import annotations

import gc
import itertools
import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from fastadam.kernels._commit import Effects

RANDOM = np.random.default_rng(0)


class Slots:
    __slots__ = ("a", "b")


class Below(Slots):
    __slots__ = ("__dict__", "c")


class Watcher:
    """Looks, and does something, when it goes."""

    def __init__(self, seen: list[Any], look: Any) -> None:
        self.seen, self.look = seen, look

    def __del__(self) -> None:
        self.seen.append(self.look())


def layouts(shape: tuple[int, ...], dtype: Any) -> dict[str, np.ndarray]:
    """Writable arrays of one shape, in many layouts."""
    axes = tuple(reversed(range(len(shape))))
    twice = tuple(2 * n for n in shape)
    every = (*(slice(None, None, 2) for _ in shape), ...)
    back = (*(slice(None, None, -1) for _ in shape), ...)
    record = np.dtype([("pad", "u1"), ("x", dtype)])
    return {
        "C": np.zeros(shape, dtype),
        "F": np.zeros(shape[::-1], dtype).transpose(axes),
        "strided": np.zeros(twice, dtype)[every],
        "backwards": np.zeros(shape, dtype)[back],
        "both": np.zeros(twice[::-1], dtype).transpose(axes)[every][back],
        "misaligned field": np.zeros(shape, record)["x"][...],
        "swapped": np.zeros(shape, np.dtype(dtype).newbyteorder()),
    }


def test_copies_between_all_layouts() -> None:
    dtypes = ["?", "i1", "f2", "f4", "f8", "c16", "S5", "U3", "V3", "M8[s]"]
    for shape, dtype in itertools.product([(), (0,), (5,), (3, 4), (2, 3, 4), (2, 0)], dtypes):
        n = int(np.prod(shape))
        numbers = RANDOM.integers(0, 100, n)
        raw = dtype.startswith(("V", "S"))
        values = np.array([bytes([k, 1, 2]) for k in numbers] if raw else numbers).astype(dtype)
        values = values.reshape(shape)
        for (to, _), (source, _) in itertools.product(layouts(shape, dtype).items(), repeat=2):
            target = np.asarray(layouts(shape, dtype)[to])
            given = np.asarray(layouts(shape, dtype)[source])
            given[...] = values
            effects = Effects()
            effects.hold_copy(target, given)
            assert target.tobytes() == bytes(target.nbytes), (shape, dtype, to, source)
            effects.commit()
            assert target.tobytes("C") == values.astype(target.dtype).tobytes("C"), (
                f"{shape} {dtype}: {source} to {to}"
            )


def test_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    target = np.zeros((4, 2), ml_dtypes.bfloat16)[:, 0]
    effects = Effects()
    effects.hold_copy(target, np.array([1, 2, 3, 4], np.float32))
    effects.commit()
    assert target.astype(float).tolist() == [1, 2, 3, 4]


def test_casts_are_made_when_it_is_held() -> None:
    target, source = np.zeros(2, np.float32), np.array([1e300, 2.0])
    effects = Effects()
    with np.errstate(all="raise"):
        effects.hold_copy(target, source)
        source[...] = 7
        effects.commit()
    assert target.tolist() == [np.inf, 2]


def refused(error: Any, words: str, call: Any, *arguments: Any) -> None:
    with pytest.raises(error, match=words):
        call(*arguments)


def test_what_cannot_be_committed_is_refused_when_it_is_held() -> None:
    effects = Effects()
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    windows = np.lib.stride_tricks.as_strided(np.zeros(4), (3, 2), (8, 8))
    refused(ValueError, "read-only", effects.hold_copy, read_only, np.ones(3))
    refused(ValueError, "shape", effects.hold_copy, np.zeros(3), np.ones(1))
    refused(ValueError, "objects", effects.hold_copy, np.zeros(3, object), np.ones(3))
    refused(TypeError, "Cannot cast", effects.hold_copy, np.zeros(3), np.ones(3, complex))
    refused(TypeError, "arrays are copied", effects.hold_copy, [0.0], np.ones(1))
    refused(TypeError, "arrays are copied", effects.hold_copy, np.zeros(1), 1.0)
    repeated = np.lib.stride_tricks.as_strided(np.zeros(1), (3,), (0,))
    for array in (repeated, windows):
        refused(ValueError, "share memory", effects.hold_copy, array, np.ones(array.shape))
    refused(TypeError, "expected dict", effects.hold_entry, OrderedDict(), "a", 1)
    refused(TypeError, "expected dict", effects.hold_entry, None, "a", 1)
    refused(TypeError, "expected str", effects.hold_entry, {}, 1, 1)
    refused(TypeError, "expected str", effects.hold_entry, {}, np.str_("a"), 1)
    refused(AttributeError, "no slot 'x'", effects.hold_slot, Slots(), "x", 1)
    refused(AttributeError, "no slot '__class__'", effects.hold_slot, Slots(), "__class__", int)
    refused(AttributeError, "no slot '__dict__'", effects.hold_slot, Below(), "__dict__", {})
    assert len(effects) == 0
    effects.commit()


def test_entries_and_slots() -> None:
    mapping: dict[str, Any] = {f"k{i}": i for i in range(50)}
    for i in range(0, 50, 2):
        del mapping[f"k{i}"]
    expected = dict(mapping)
    one, two = Slots(), Below()
    one.a = 1
    effects = Effects()
    for i in range(40, 60):
        effects.hold_entry(mapping, f"k{i}", -i)
        expected[f"k{i}"] = -i
    effects.hold_removal(mapping, "k1")
    effects.hold_removal(mapping, "none")
    del expected["k1"]
    effects.hold_entry(two.__dict__, "new", 5)
    effects.hold_slot(one, "a", 2)
    effects.hold_slot(one, "b", 3)
    effects.hold_slot(two, "a", 4)
    effects.hold_slot(two, "c", 4)
    effects.commit()
    assert list(mapping.items()) == list(expected.items())
    assert (one.a, one.b, two.a, two.c, two.new) == (2, 3, 4, 4, 5)  # type: ignore[attr-defined]
    refused(RuntimeError, "already", effects.commit)
    refused(RuntimeError, "already", effects.hold_entry, mapping, "a", 1)
    refused(RuntimeError, "already", Effects().extend, effects)


def test_the_last_one_held_counts_and_entries_before_removals() -> None:
    mapping = {"a": 0, "b": 0, "c": 0}
    array = np.zeros(2)
    effects = Effects()
    for value in (1, 2):
        effects.hold_entry(mapping, "a", value)
        effects.hold_entry(mapping, "new", value)
        effects.hold_copy(array, np.full(2, float(value)))
    effects.hold_removal(mapping, "b")
    effects.hold_removal(mapping, "b")
    effects.hold_removal(mapping, "c")
    effects.hold_entry(mapping, "c", 3)
    effects.commit()
    assert (mapping, array.tolist()) == ({"a": 2, "new": 2, "c": 3}, [2, 2])


def test_an_objects_own_dict() -> None:
    class Thing:
        def __init__(self) -> None:
            self.t = 0

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)

    things = [Thing() for _ in range(3)]
    effects = Effects()
    for i, thing in enumerate(things):
        effects.hold_entry(vars(thing), "t", i)
        effects.hold_entry(vars(thing), f"new{i}", i)
    effects.commit()
    assert [vars(thing) for thing in things] == [{"t": i, f"new{i}": i} for i in range(3)]


def test_arrays_that_give_each_other_their_values() -> None:
    memory = np.arange(10.0)
    a, b, c = memory[:4], memory[3:7], memory[8:]
    before = memory.copy()
    effects = Effects()
    effects.hold_copy(a, b)
    effects.hold_copy(c, memory[7:9])
    effects.hold_copy(b, before[:4])
    effects.commit()
    assert memory.tolist() == [3, 4, 5, 0, 1, 2, 3, 7, 7, 8]
    # in a ring
    arrays = [np.full(3, float(i)) for i in range(4)]
    effects = Effects()
    for i in range(4):
        effects.hold_copy(arrays[i], arrays[i - 1])
    effects.commit()
    assert [array[0] for array in arrays] == [3, 0, 1, 2]


def test_no_code_runs_before_all_is_done() -> None:
    seen: list[Any] = []
    mapping: dict[str, Any] = {}
    one = Slots()
    array = np.zeros(3)

    def look() -> Any:
        return mapping["last"], array.tolist(), one.a

    mapping.update(first=Watcher(seen, look), last=0, gone=Watcher(seen, look))
    one.a = Watcher(seen, look)
    effects = Effects()
    effects.hold_entry(mapping, "first", 1)
    effects.hold_removal(mapping, "gone")
    effects.hold_slot(one, "a", 1)
    effects.hold_copy(array, np.ones(3))
    effects.hold_entry(mapping, "last", 1)
    gc.disable()
    try:
        effects.commit()
    finally:
        gc.enable()
    assert seen == []
    effects.release()
    assert seen == [(1, [1, 1, 1], 1)] * 3
    assert "gone" not in mapping


def test_what_finalizers_do_to_the_effects_themselves() -> None:
    effects = Effects()
    seen: list[Any] = []

    def look() -> Any:
        effects.release()
        return len(effects)

    mapping: dict[str, Any] = {"a": Watcher(seen, look), "b": Watcher(seen, look)}
    effects.hold_entry(mapping, "a", Watcher(seen, look))
    effects.hold_entry(mapping, "b", 1)
    effects.commit()
    effects.release()
    mapping.clear()
    assert seen == [0, 0, 0]


def test_references() -> None:
    value, old, array = object(), object(), np.zeros(3)
    mapping: dict[str, Any] = {"a": old, "c": old}
    one = Slots()
    one.a = old
    source = np.ones(3)
    things = [value, old, array, mapping, one, source]
    before = [sys.getrefcount(thing) for thing in things]
    for committed in (False, True):
        effects = Effects()
        for _ in range(3):
            effects.hold_entry(mapping, "a", value)
            effects.hold_entry(mapping, "b", value)
            effects.hold_removal(mapping, "c")
            effects.hold_slot(one, "a", value)
            effects.hold_slot(one, "b", value)
            effects.hold_copy(array, source)
        other = Effects()
        other.hold_entry(mapping, "a", value)
        effects.extend(other)
        assert (len(other), len(effects)) == (0, 19)
        if committed:
            effects.commit()
        # either lets everything go
        if committed:
            effects.release()
            del effects
        else:
            del effects
            assert [sys.getrefcount(thing) for thing in things] == before
    after = [sys.getrefcount(thing) for thing in things]
    assert [now - then for now, then in zip(after, before, strict=True)] == [4, -3, 0, 0, 0, 0]


def test_what_has_changed_since_is_refused_with_nothing_made() -> None:
    class Key(str):
        __slots__ = ()

    def shrink(array: np.ndarray, mapping: dict[Any, Any]) -> None:
        array.resize(1, refcheck=False)

    def lock(array: np.ndarray, mapping: dict[Any, Any]) -> None:
        array.flags.writeable = False

    def widen(array: np.ndarray, mapping: dict[Any, Any]) -> None:
        array.dtype = np.float32  # type: ignore[misc]

    def number(array: np.ndarray, mapping: dict[Any, Any]) -> None:
        mapping[1] = 1

    def subclass(array: np.ndarray, mapping: dict[Any, Any]) -> None:
        mapping[Key("x")] = 1

    import warnings

    for change in (shrink, lock, widen, number, subclass):
        array, mapping, one = np.zeros(3), {"a": 0}, Slots()
        one.a = 0
        effects = Effects()
        effects.hold_slot(one, "a", 1)
        effects.hold_entry(mapping, "a", 1)
        effects.hold_entry(mapping, "new", 1)
        effects.hold_copy(array, np.ones(3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(array, mapping)
        refused(RuntimeError, "an array has been changed|no strings", effects.commit)
        assert (one.a, mapping["a"], "new" in mapping, effects.committed) == (0, 0, False, False)
        assert not array.any()
        effects.release()


@pytest.mark.serial  # no other thread may ask for memory meanwhile
def test_a_key_that_there_is_no_memory_for() -> None:
    testcapi = pytest.importorskip("_testcapi")
    for countdown in range(40):
        mappings: list[dict[str, int]] = [{f"k{i}": i for i in range(n)} for n in range(12)]
        array, one = np.zeros(2), Slots()
        one.a = 0
        effects = Effects()
        effects.hold_copy(array, np.ones(2))
        effects.hold_slot(one, "a", 1)
        for mapping in mappings:
            for name in ("x", "k0", "y", "z"):
                effects.hold_entry(mapping, name, -1)
        failed = False
        testcapi.set_nomemory(countdown, countdown + 1)
        try:
            effects.commit()
        except MemoryError:
            failed = True
        finally:
            testcapi.remove_mem_hooks()
        expected = [{f"k{i}": i for i in range(n)} for n in range(12)]
        if not failed:
            assert (one.a, array.tolist()) == (1, [1, 1])
            expected = [{**old, "x": -1, "k0": -1, "y": -1, "z": -1} for old in expected]
        else:
            assert (one.a, array.tolist(), effects.committed) == (0, [0, 0], False)
        assert mappings == expected, countdown


def test_many() -> None:
    random = np.random.default_rng(1)
    memory = np.zeros(4000)
    mapping: dict[str, int] = {}
    effects, model, counts = Effects(), memory.copy(), {}
    for i in range(3000):
        part = Effects()
        at, n = int(random.integers(3990)), int(random.integers(1, 10))
        part.hold_copy(memory[at : at + n], np.full(n, float(i)))
        model[at : at + n] = i
        key = f"k{random.integers(500)}"
        part.hold_entry(mapping, key, i)
        counts[key] = i
        effects.extend(part)
    effects.commit()
    assert np.array_equal(memory, model)
    assert mapping == counts
    refused(ValueError, "themselves", (extra := Effects()).extend, extra)
