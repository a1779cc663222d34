"""One thread at a time updates an optimizer; the others are told so."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.exclusive import _RUNNING

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


@contextmanager
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
