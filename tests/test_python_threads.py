"""Python threads: they run during a step, and updates in several of them do not mix."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam

pytestmark = pytest.mark.serial

# The second thread waits for a lock, which the first releases right before the update. The first
# is never asked to give the GIL up, so that the second can only run where it is let in. It may come
# too late for one step, so there are many; all of them are too few where no step lets it in.
GIL = """
import sys, threading, time
import numpy as np
import fastadam
from fastadam.kernels.plain_steps import adam_batch
from fastadam.kernels.table import Step
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.kernels.sums import sum_of_squares

sys.setswitchinterval(1e6)
fastadam.set_num_threads(1)
N = SIZE
w = np.zeros(N, np.float32)
opt = fastadam.Adam().setup(w)
grad = np.ones_like(w)
for _ in range(3):
    opt.apply_gradients(grad)
arrays = np.zeros((3, N), np.float32)
coefficients = step_coefficients(opt.hyperparam.get_dict(), 1)
step = Step("p", arrays[0], grad, (arrays[1], arrays[2], None), coefficients)

gate = threading.Lock()
gate.acquire()
ran = []

def wait_and_run():
    with gate:
        ran.append(True)

threading.Thread(target=wait_and_run).start()
# the last moment at which the first thread waits for anything
time.sleep(0.2)
gate.release()
for _ in range(TIMES):
    BODY
    if ran:
        break
print(bool(ran))
"""


def run(code: str) -> str:
    """Run a program in a new Python and return what it prints."""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.strip()


@pytest.mark.parametrize(
    "body", ["opt.apply_gradients(grad)", "adam_batch([step])", "sum_of_squares([grad])"]
)
def test_a_step_lets_other_threads_run(body: str) -> None:
    code = GIL.replace("SIZE", "4_000_000")
    assert run(code.replace("TIMES", "200").replace("BODY", body)) == "True"


def test_python_alone_does_not_let_them_run() -> None:
    # so that the test above would fail for a step that keeps the GIL
    code = GIL.replace("SIZE", "10")
    busy = "sum(range(10_000))"
    assert run(code.replace("TIMES", "2000").replace("BODY", busy)) == "False"


def make(seed: int) -> tuple[fastadam.Adam, dict[str, Any], list[dict[str, Any]]]:
    """An optimizer of some variant, its model and gradients for many updates."""
    random = np.random.default_rng(seed)
    shapes = {"a": (301, 137), "b": (5,), "c": (40_000,)}
    params: dict[str, Any] = {k: random.standard_normal(s) for k, s in shapes.items()}
    if seed % 2:
        params = {k: p.astype(np.float32) for k, p in params.items()}
    opt = fastadam.Adam(amsgrad=seed % 3 == 0, weight_decay_rate=0.01 * seed).setup(params)
    grads = [{k: random.standard_normal(p.shape) for k, p in params.items()} for _ in range(4)]
    return opt, params, grads


def work(seed: int, times: int = 25) -> dict[str, bytes]:
    """Train and return the bits."""
    opt, params, grads = make(seed)
    for i in range(times):
        opt.apply_gradients(grads[i % 4])
    return {k: p.tobytes() for k, p in params.items()}


def together(*functions: Callable[[], Any]) -> list[Any]:
    """Run functions in a thread each, from one moment on, and return what they return."""
    start = threading.Barrier(len(functions))
    results: list[Any] = [None] * len(functions)

    def call(i: int) -> None:
        start.wait(60)
        try:
            results[i] = functions[i]()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


@pytest.fixture
def quick_switches() -> Any:
    """Let Python change threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(params=[1, 3])
def threads_per_step(request: Any) -> Any:
    """Set the number of OpenMP's threads."""
    fastadam.set_num_threads(request.param)
    yield
    fastadam.set_num_threads(None)


@pytest.mark.usefixtures("quick_switches", "threads_per_step")
def test_optimizers_of_different_models_run_freely_side_by_side() -> None:
    expected = [work(seed) for seed in range(4)]
    for _ in range(5):
        found = together(*(lambda seed=seed: work(seed) for seed in range(4)))
        assert found == expected


@pytest.mark.usefixtures("quick_switches")
def test_the_number_of_threads_may_change_in_between() -> None:
    expected = work(1)
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n = n % 4 + 1
            fastadam.set_num_threads(n)
        fastadam.set_num_threads(None)

    def train() -> Any:
        try:
            return [work(1) for _ in range(5)]
        finally:
            stop.set()

    assert together(train, change) == [[expected] * 5, None]


@pytest.mark.usefixtures("quick_switches")
def test_optimizers_of_one_model_take_turns_under_a_lock() -> None:
    """Each makes its steps from wherever the other has left the parameters."""
    lock = threading.Lock()
    w = np.zeros(50_000, np.float32)
    turns: list[int] = []
    opts = [fastadam.Adam(alpha=alpha).setup({"w": w}) for alpha in (0.01, 0.5)]
    grads = [np.linspace(-1, 2, w.size), np.linspace(3, -5, w.size)]

    def train(i: int) -> None:
        for _ in range(30):
            with lock:
                opts[i].apply_gradients({"w": grads[i]})
                turns.append(i)

    assert together(lambda: train(0), lambda: train(1)) == [None, None]
    again = np.zeros_like(w)
    twins = [fastadam.Adam(alpha=alpha).setup({"w": again}) for alpha in (0.01, 0.5)]
    for i in turns:
        twins[i].apply_gradients({"w": grads[i]})
    np.testing.assert_array_equal(w, again)


def test_a_loss_function_may_update_another_optimizer() -> None:
    """As in learning rates learned by an optimizer of their own, or a GAN in one function."""
    (outer, outer_params, outer_grads), (inner, inner_params, inner_grads) = make(1), make(2)

    def lossfun(i: int) -> Any:
        inner.apply_gradients(inner_grads[i % 4])
        return 0.5, outer_grads[i % 4]

    for i in range(25):
        outer.update(lossfun, i)
    for params, seed in ((outer_params, 1), (inner_params, 2)):
        assert {k: p.tobytes() for k, p in params.items()} == work(seed)


@pytest.mark.usefixtures("quick_switches")
def test_hooks_may_come_and_go_during_updates() -> None:
    opt, _, grads = make(1)
    stop = threading.Event()

    def update() -> Any:
        try:
            for i in range(300):
                opt.apply_gradients(grads[i % 4])
        finally:
            stop.set()

    def change() -> None:
        while not stop.is_set():
            opt.add_hook(lambda opt: None, "nothing", "post")
            opt.remove_hook("nothing")

    assert together(update, change) == [None, None]
    assert opt.t == 300
