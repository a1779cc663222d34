"""Makes sure that the tests test what they are meant to test."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import fastadam
from fastadam.kernels.cpu import _threads
from fastadam.kernels.cpu._late_steps import LateSteps
from fastadam.optimizers import decay_advice

if os.environ.get("FASTADAM_TEST_INSTALLED") == "1":
    _checkout = Path(__file__).resolve().parents[1] / "fastadam"
    _tested = Path(fastadam.__file__).resolve().parent
    if _tested == _checkout:
        raise AssertionError(f"the installed fastadam is to be tested, not that of {_checkout}")

# what tests of several folders share: `steps`
sys.path.insert(0, str(Path(__file__).resolve().parent))

# a shell starts what it runs in the background with Ctrl-C ignored
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A test that would fail if a name did something else, for every public name.
COVERAGE = Path(__file__).resolve().parents[1] / "docs" / "coverage.rst"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--combinations",
        type=int,
        metavar="N",
        help="of the cases of each test, run as few as have every combination of the values of N "
        "of its parameters",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Mark what the page of coverage names with ``smoke``; choose cases if ``--combinations``."""
    named = set(re.findall(r"``(test_\w+\.py)::(test_\w+)``", COVERAGE.read_text(encoding="utf-8")))
    for item in items:
        if (item.path.name, getattr(item, "originalname", item.name)) in named:
            item.add_marker("smoke")
    yield
    n = config.getoption("--combinations")
    if n is not None:
        from combinations import few

        chosen = few(items, n)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]


@pytest.fixture(params=["npz", "h5"])
def suffix(request: pytest.FixtureRequest) -> str:
    """Each kind of file that there is a library for."""
    if request.param == "h5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    return str(request.param)


@pytest.fixture
def path(suffix: str, tmp_path: Path) -> Path:
    """A name for a file of each kind."""
    return tmp_path / f"run.{suffix}"


@pytest.fixture
def case() -> Callable[..., AbstractContextManager[None]]:
    """Return a context that adds the case of a loop to what fails within: ``with case(n=n):``."""

    @contextmanager
    def within(**what: object) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            error.add_note(
                "case: " + ", ".join(f"{name}={value!r}" for name, value in what.items())
            )
            raise

    return within


class _Calm(LateSteps):
    """Leaves the number of threads as it is, however busy the machine that runs the tests is."""

    def bound(self, n_threads: int, total: int) -> int:
        return n_threads


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "late_steps", _Calm())
    # what a test sets by hand is none of the next one's
    monkeypatch.setattr(_threads, "by_hand", _threads.by_hand)


@pytest.fixture(autouse=True)
def each_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what warns once a process do so in every test, whatever ran before it."""
    monkeypatch.setattr(decay_advice, "_warned", False)
