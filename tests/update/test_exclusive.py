"""One thread at a time updates an optimizer; the others are told so."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.update.exclusive import _RUNNING, exclusive

pytestmark = pytest.mark.serial

WORDS = r"another thread is in an update of this Adam; .*threading\.Lock"


def make() -> fastadam.Adam:
    """Adam of two parameters after a step."""
    opt = fastadam.Adam(alpha=0.25).setup({"w": np.ones(3), "b": np.zeros(2)})
    opt.apply_gradients(gradients())
    return opt


def gradients() -> dict[str, Any]:
    """Gradients for it."""
    return {"w": np.array([1.0, -2.0, 0.5]), "b": np.ones(2)}


def found(opt: Any) -> dict[str, Any]:
    """Bits and counts, by looks that are always allowed."""
    return {
        path: (
            param.array.tobytes(),
            param.update_rule.t,
            [array.tobytes() for array in param.update_rule.state.values()],
        )
        for path, param in opt.parameters.items()
    }


@contextlib.contextmanager
def elsewhere(work: Callable[[Callable[[], None]], Any]) -> Iterator[None]:
    """Run the block while another thread is at the point where its work calls what it is given."""
    there, go_on = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def pause() -> None:
        there.set()
        assert go_on.wait(20)

    def run() -> None:
        try:
            work(pause)
        except BaseException as error:
            errors.append(error)
            there.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert there.wait(20)
        yield
    finally:
        go_on.set()
        thread.join(20)
    assert not errors


def from_loss(opt: Any, pause: Any) -> None:
    """Be in the loss function of an update."""

    def lossfun() -> Any:
        pause()
        return 0.5, gradients()

    opt.update(lossfun)


def from_hook(opt: Any, pause: Any) -> None:
    """Be in a hook of apply_gradients."""
    opt.add_hook(lambda opt: pause(), "pause", "post")
    opt.apply_gradients(gradients())


WAYS = pytest.mark.parametrize("way", [from_loss, from_hook])
CALLS = pytest.mark.parametrize(
    "call",
    [
        lambda opt: opt.apply_gradients(gradients()),
        lambda opt: opt.update(lambda: (0.5, gradients())),
        lambda opt: opt.update(),
    ],
)


@WAYS
@CALLS
def test_second_thread_is_refused_and_changes_nothing(way: Any, call: Any) -> None:
    opt, twin = make(), make()
    with elsewhere(lambda pause: way(opt, pause)):
        before = found(opt)
        with pytest.raises(RuntimeError, match=WORDS):
            call(opt)
        assert found(opt) == before
    twin.apply_gradients(gradients())
    for path, param in twin.parameters.items():
        np.testing.assert_array_equal(opt.parameters[path].array, param.array)
        assert opt.parameters[path].update_rule.t == 2
    assert not _RUNNING


@WAYS
def test_later_and_other_optimizers_are_free(way: Any) -> None:
    opt, other = make(), make()
    with elsewhere(lambda pause: way(opt, pause)):
        other.apply_gradients(gradients())
        assert other.t == 2
    if way is from_hook:
        opt.remove_hook("pause")
    opt.apply_gradients(gradients())
    assert (opt.t, opt.parameters["w"].update_rule.t) == (3, 3)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_free_after_an_error(error: type[BaseException]) -> None:
    opt = make()

    def lossfun() -> None:
        raise error

    with pytest.raises(error):
        opt.update(lossfun)
    assert not _RUNNING
    with elsewhere(lambda pause: from_loss(opt, pause)):
        pass
    assert opt.t == 2


def test_what_a_tracer_leaves_behind_is_no_later_optimizers() -> None:
    """An entry whose removal was interrupted: the id of its object is given to nobody else."""
    opt = make()
    key, tracing = id(opt), sys.gettrace()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith("exclusive.py"):
            return None
        # the line that removes the entry
        if event == "line" and frame.f_lineno == last_line:
            raise KeyboardInterrupt
        return trace

    lines, first = inspect.getsourcelines(exclusive)
    last_line = first + next(n for n, line in enumerate(lines) if "del _RUNNING[key]" in line)
    sys.settrace(trace)
    try:
        # pytest.raises would keep the optimizer
        with contextlib.suppress(KeyboardInterrupt):
            opt.apply_gradients(gradients())
    finally:
        sys.settrace(tracing)
    assert key in _RUNNING
    gone = weakref.ref(opt)
    del opt
    gc.collect()
    try:
        # its id is given away when it is gone
        assert gone() is not None
        assert {make().t for _ in range(300)} == {1}
    finally:
        del _RUNNING[key]


def test_one_thread_may_nest_updates() -> None:
    opt = make()

    def lossfun() -> Any:
        opt.apply_gradients(gradients())
        return 0.5, gradients()

    opt.update(lossfun)
    assert (opt.t, opt.parameters["w"].update_rule.t) == (3, 3)
    assert not _RUNNING


@pytest.mark.parametrize("way", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_made_during_an_update_are_free(way: Any) -> None:
    opt = make()
    copies: list[Any] = []

    def lossfun() -> Any:
        copies.append(way(opt))
        return 0.5, gradients()

    opt.update(lossfun)
    with elsewhere(lambda pause: from_loss(copies[0], pause)):
        pass
    assert (copies[0].t, opt.t) == (2, 2)


def test_threads_that_race() -> None:
    """Whoever is refused tries again: in the end every update was made, once, as if in a row."""
    opt, twin = make(), make()
    refused: list[RuntimeError] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            done = 0
            while done < 100:
                try:
                    opt.apply_gradients(gradients())
                    done += 1
                except RuntimeError as error:
                    refused.append(error)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    for _ in range(300):
        twin.apply_gradients(gradients())
    assert opt == twin
    for path, param in twin.parameters.items():
        np.testing.assert_array_equal(opt.parameters[path].array, param.array)
    assert not _RUNNING


LOOKS: dict[str, Callable[[Any, Path], Any]] = {
    "save": lambda opt, folder: fastadam.save(folder / "run.npz", opt),
    "save_npz": lambda opt, folder: fastadam.serializers.save_npz(folder / "opt.npz", opt),
    "serialize": lambda opt, folder: opt.serialize(fastadam.serializers.DictionarySerializer()),
    "==": lambda opt, folder: opt == make(),
    "other ==": lambda opt, folder: make() == opt,
    "<": lambda opt, folder: opt < make(),
    ">=": lambda opt, folder: make() >= opt,
    "compare": lambda opt, folder: fastadam.compare(make(), opt),
    "snapshot": lambda opt, folder: fastadam.snapshot(opt),
    "copy": lambda opt, folder: copy.copy(opt),
    "deepcopy": lambda opt, folder: copy.deepcopy(opt),
    "deepcopy of more": lambda opt, folder: copy.deepcopy({"opt": opt}),
    "pickle": lambda opt, folder: pickle.dumps(opt),
}
LOADS: dict[str, Callable[[Any, Path], Any]] = {
    "load": lambda opt, folder: fastadam.load(folder / "good.npz", opt),
    "load_npz": lambda opt, folder: fastadam.serializers.load_npz(
        folder / "good.npz", opt, path="optimizer/"
    ),
    "setup": lambda opt, folder: opt.setup({"w": np.ones(3)}),
}
UPDATES: dict[str, Callable[[Any, Path], Any]] = {
    "apply_gradients": lambda opt, folder: opt.apply_gradients(gradients()),
    "update": lambda opt, folder: opt.update(lambda: (0.5, gradients())),
}


def refused(doors: dict[str, Callable[[Any, Path], Any]], opt: Any, folder: Path) -> None:
    """Expect all of these to be refused, and files to be as they were."""
    for name, door in doors.items():
        try:
            door(opt, folder)
        except RuntimeError as error:
            assert "this Adam" in str(error), name  # noqa: PT017
        else:
            raise AssertionError(f"{name} was not refused")


@WAYS
def test_all_doors_are_closed_to_other_threads(way: Any, tmp_path: Path) -> None:
    opt = make()
    fastadam.save(tmp_path / "good.npz", opt)
    with elsewhere(lambda pause: way(opt, pause)):
        before = found(opt)
        refused({**LOOKS, **LOADS, **UPDATES}, opt, tmp_path)
        assert found(opt) == before
        # what is of others is free
        assert make() == make()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.npz"]
    if way is from_hook:
        opt.remove_hook("pause")
    for door in {**LOOKS, **LOADS, **UPDATES}.values():
        door(make(), tmp_path)


@pytest.mark.parametrize("where", ["rule hook", "rule", "signal"])
def test_in_the_middle_of_a_step_all_doors_are_closed(where: str, tmp_path: Path) -> None:
    opt, twin = make(), make()
    fastadam.save(tmp_path / "good.npz", opt)
    doors = {**LOOKS, **LOADS, **UPDATES}
    called: list[bool] = []

    def closed(*_: Any) -> None:
        called.append(True)
        refused(doors, opt, tmp_path)

    for each in (opt, twin):
        rule = each.parameters["b"].update_rule
        if where == "rule":
            core = rule.update_core
            rule.update_core = lambda param, core=core: (closed(), core(param))
        else:
            rule.add_hook(closed if where == "rule hook" else press, "x")
    if where == "signal":
        # held back until the step is whole: then everything is open, and finds it so
        doors = LOOKS
        before = signal.signal(signal.SIGUSR1, lambda *_: whole(opt, tmp_path, called))
        try:
            opt.apply_gradients(gradients())
        finally:
            signal.signal(signal.SIGUSR1, before)
    else:
        opt.apply_gradients(gradients())
    assert called
    assert opt.parameters["b"].update_rule.t == 2


def load_without_hooks(path: Path, opt: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was saved with hooks")
        fastadam.load(path, opt)


def press(rule: Any, param: Any) -> None:
    signal.raise_signal(signal.SIGUSR1)


def whole(opt: Any, folder: Path, called: list[bool]) -> None:
    for door in LOOKS.values():
        door(opt, folder)
    assert all(param.update_rule.t == opt.t for param in opt.parameters.values())
    other = make()
    load_without_hooks(folder / "run.npz", other)
    assert found(opt) == found(other)
    called.append(True)


@pytest.mark.parametrize("repeated", [False, True])
def test_hooks_may_look_and_not_update(repeated: bool, tmp_path: Path) -> None:
    for timing in ("pre", "post"):
        opt = make()
        for _ in range(3 if repeated else 0):
            opt.apply_gradients(gradients())
        t = opt.t
        seen: list[int] = []

        def hook(opt: Any, timing: str = timing, seen: list[int] = seen) -> None:
            refused(UPDATES, opt, tmp_path)
            for name, door in LOOKS.items():
                # nobody can pickle this function
                if name != "pickle":
                    door(opt, tmp_path)
            other = make()
            load_without_hooks(tmp_path / "run.npz", other)
            assert found(opt) == found(other), timing
            assert opt.t == other.t
            seen.append(other.t)

        opt.add_hook(hook, "x", timing)
        opt.apply_gradients(gradients())
        assert seen == [t if timing == "pre" else t + 1]
        twin = make()
        for _ in range(opt.t - 1):
            twin.apply_gradients(gradients())
        opt.remove_hook("x")
        assert not fastadam.compare(opt, twin)


def test_a_hook_that_updates_changes_nothing() -> None:
    opt, twin = make(), make()
    opt.add_hook(lambda opt: opt.apply_gradients(gradients()), "again", "pre")
    before = fastadam.snapshot(twin)
    with pytest.raises(RuntimeError, match="hook"):
        opt.apply_gradients(gradients())
    opt.remove_hook("again")
    assert not fastadam.compare(opt, before)


@pytest.mark.parametrize("what", ["update", "load", "setup"])
def test_progress_that_updates(what: str, tmp_path: Path) -> None:
    """The good file is still there."""
    opt = make()
    fastadam.save(tmp_path / "good.npz", opt)
    path = tmp_path / "run.npz"
    fastadam.save(path, opt)
    kept = path.read_bytes()
    opt.apply_gradients(gradients())
    before = fastadam.snapshot(opt)

    def progress(done: int, total: int) -> None:
        {**UPDATES, **LOADS}[what](opt, tmp_path)

    with pytest.raises(RuntimeError, match="is saving"):
        fastadam.save(path, opt, progress=progress)
    assert path.read_bytes() == kept
    assert not fastadam.compare(opt, before)
    assert not _RUNNING


@pytest.mark.parametrize("look", ["save", "deepcopy", "pickle", "compare", "snapshot"])
def test_looks_while_another_thread_trains(look: str, tmp_path: Path) -> None:
    """Each is refused, or whole; and so is each update."""
    opt = make()
    for _ in range(2):
        opt.apply_gradients(gradients())
    stop = threading.Event()
    errors: list[BaseException] = []

    def train() -> None:
        while not stop.is_set():
            time.sleep(0.001)
            try:
                opt.apply_gradients(gradients())
            except RuntimeError:
                pass
            except BaseException as error:
                errors.append(error)

    def looked() -> Any:
        if look == "save":
            fastadam.save(tmp_path / "run.npz", opt)
            other = make()
            fastadam.load(tmp_path / "run.npz", other)
            return fastadam.snapshot(other)
        if look == "compare":
            fastadam.compare(opt, make())
            return None
        made = {"deepcopy": copy.deepcopy, "snapshot": fastadam.snapshot}.get(look)
        found = pickle.loads(pickle.dumps(opt)) if made is None else made(opt)
        return found if look == "snapshot" else fastadam.snapshot(found)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=train)
    thread.start()
    done = refusals = 0
    try:
        while done < 6 and refusals < 300:
            try:
                snapshot = looked()
            except RuntimeError:
                refusals += 1
                continue
            done += 1
            if snapshot is None:
                continue
            twin = make()
            while twin.t < snapshot.t:
                twin.apply_gradients(gradients())
            assert not fastadam.compare(fastadam.snapshot(twin), snapshot), look
    finally:
        stop.set()
        thread.join(20)
        sys.setswitchinterval(interval)
    assert not errors
    assert done or refusals
    assert not _RUNNING


def test_two_threads_may_look() -> None:
    opt = make()

    class Slow(fastadam.serializers.DictionarySerializer):
        def __call__(self, key: str, value: Any) -> Any:
            pause()
            return super().__call__(key, value)

    def pause() -> None:
        raise AssertionError

    def look(wait: Any) -> None:
        nonlocal pause
        pause = wait
        opt.serialize(Slow())

    with elsewhere(look):
        fastadam.snapshot(opt)
        with pytest.raises(RuntimeError, match="another thread is saving"):
            opt.apply_gradients(gradients())
    opt.apply_gradients(gradients())


def test_hooks_added_by_another_thread_are_seen_by_the_next_update() -> None:
    opt, twin = make(), make()
    called: list[int] = []
    for round_ in range(6):
        with elsewhere(lambda pause: pausing(opt, pause)):
            for i in range(20):
                opt.add_hook(lambda opt: called.append(opt.t), f"{round_}-{i}", "pre")
            if round_:
                for i in range(20):
                    opt.remove_hook(f"{round_ - 1}-{i}")
        twin.apply_gradients(gradients())
        assert (opt.t, called) == (
            2 + round_,
            [1 + r for r in range(1, round_ + 1) for _ in "x" * 20],
        )
    opt._hooks = twin._hooks
    assert not fastadam.compare(opt, twin)


def pausing(opt: Any, pause: Any) -> None:
    """Be in a hook that is there for this update alone."""
    opt.add_hook(lambda opt: pause(), "pause", "pre")
    try:
        opt.apply_gradients(gradients())
    finally:
        opt.remove_hook("pause")


FORK = """
import os, threading, warnings
import numpy as np, fastadam
warnings.simplefilter("ignore")
opt = fastadam.Adam().setup(np.ones(3))
there, go_on = threading.Event(), threading.Event()
def lossfun():
    there.set(); go_on.wait(20)
    return 0.5, np.ones(3)
thread = threading.Thread(target=opt.update, args=(lossfun,))
thread.start(); there.wait(20)
child = os.fork()
if child == 0:
    opt.apply_gradients(np.ones(3))
    os._exit(opt.t)
go_on.set(); thread.join(20)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), opt.t)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_is_free() -> None:
    found = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.stdout.split(), found.stderr) == (["1", "1"], "")
