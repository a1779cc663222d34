"""Steps on a GPU have the bits of steps on the CPU: every variant, pair of types and size."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cases import (
    OFFSETS,
    assert_batches_agree,
    assert_masters_agree,
    assert_prepared_steps_agree,
    assert_same_bits,
    assert_steps_agree,
    coefficients_at,
    model,
    moved,
    on_gpu,
    special_values,
    values,
)
from cuda_on_cpu.memory import state
from instantiations import PAIRS, VARIANTS
from steps import step_of

from fastadam.kernels.gpu.engine import SETS
from fastadam.kernels.plain_steps import adam_batch

SIZES = (0, 1, 3, 7, 8, 9, 15, 17, 255, 256, 257, 1023, 1024, 1025, 2049, 5000)
ORDERS = ("forward", "reverse", "shuffled")


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair[1:]))
def types(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    pair: tuple[str, str, str] = request.param
    if "bfloat16" in pair:
        pytest.importorskip("ml_dtypes")
    return pair


@pytest.fixture(params=VARIANTS, ids=["adam", "adabound", "amsgrad", "amsbound"])
def variant(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the threads of the stand-in in an order."""
    monkeypatch.setattr(state, "order", request.param)
    monkeypatch.setattr(state, "seed", 7)


@pytest.mark.usefixtures("order")
def test_sizes(cupy: Any, types: Any, variant: Any) -> None:
    for n in SIZES:
        assert_steps_agree(cupy, values(types, n, n), variant)


def test_misaligned_arrays(cupy: Any, types: Any, variant: Any, case: Any) -> None:
    for offsets in OFFSETS[1:]:
        for n in (1, 7, 17, 1030):
            with case(offsets=offsets, n=n):
                assert_steps_agree(cupy, values(types, n), variant, offsets)


@pytest.mark.parametrize("eps", [3e-6, 0.0])
def test_special_values(cupy: Any, types: Any, variant: Any, eps: float) -> None:
    assert_steps_agree(cupy, special_values(types, 4000), variant, eps=eps)


def test_large_scalars(cupy: Any, types: Any, variant: Any) -> None:
    changes = {"alpha": 1e30, "eta": 1e9, "weight_decay_rate": 0.9e-9, "final_lr": 1e5}
    assert_steps_agree(cupy, values(types, 300), variant, ts=(1, 1000), **changes)


@pytest.mark.parametrize("chunk", [2048, 4096, 8192])
def test_a_large_array_has_larger_blocks(cupy: Any, types: Any, chunk: int) -> None:
    """Ends beside a pack, and where a thread has one pack but not a second."""
    blocks = 24 * cupy.cuda.Device(0).attributes["MultiProcessorCount"]
    for more in (13, 1027):
        assert_steps_agree(cupy, values(types, blocks * chunk + more), VARIANTS[0], ts=(3,))


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("n_sets", [1, 3, SETS, 2 * SETS + 1])
def test_many_tensors(cupy: Any, variant: Any, n_sets: int) -> None:
    sizes = [(7 * i) % 31 for i in range(100)] + [1500, 0, 0, 2048]
    here = model(PAIRS[0], sizes, variant, n_sets)
    there = [moved(cupy, step) for step in here]
    adam_batch(here)
    adam_batch(there)
    assert_batches_agree(there, here)


def test_all_types_and_devices_at_once(cupy: Any, variant: Any) -> None:
    pairs = [pair for pair in PAIRS if "bfloat16" not in pair]
    here = [step for pair in pairs for step in model(pair, (5, 300, 0), variant)]
    devices = min(2, cupy.cuda.runtime.getDeviceCount())
    there = []
    for i, step in enumerate(here):
        # every third step stays on the CPU
        if i % 3 == 2:
            there.append(
                step._replace(p=step.p.copy(), g=step.g.copy(), state=tuple(map(_copy, step.state)))
            )
        else:
            with cupy.cuda.Device(i % devices):
                there.append(moved(cupy, step))
    adam_batch(here)
    adam_batch(there)
    assert_batches_agree(there, here)


def _copy(array: Any) -> Any:
    return None if array is None else array.copy()


def _every_second(xp: Any, array: Any) -> Any:
    wide = xp.empty((array.shape[0], 2 * array.shape[1]), array.dtype)
    wide[:, ::2] = array
    return wide[:, ::2]


LAYOUTS = {
    "F": lambda xp, a: xp.asfortranarray(a),
    "transposed": lambda xp, a: xp.ascontiguousarray(a.T).T,
    "every second": lambda xp, a: _every_second(xp, a),
    "reversed": lambda xp, a: xp.ascontiguousarray(a[::-1])[::-1],
    "slice": lambda xp, a: xp.concatenate([a, a])[: a.shape[0], :],
}


@pytest.mark.parametrize("gradient", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(cupy: Any, layout: str, gradient: str) -> None:
    def arrays() -> list[np.ndarray]:
        return [array.reshape(12, 10) for array in values(PAIRS[0], 120)]

    here, there = arrays(), [on_gpu(cupy, a.ravel()).reshape(12, 10) for a in arrays()]
    there = [LAYOUTS[gradient if i == 1 else layout](cupy, a) for i, a in enumerate(there)]
    here = [array.copy() for array in here]
    c = coefficients_at(2, VARIANTS[-1])
    for _ in range(2):
        for p, g, m, v, vhat in (here, there):
            adam_batch([step_of("p", p, g, m, v, vhat, c)])
    for one, other in zip(there, here, strict=True):
        # where the half of a slice repeats, only what is stepped counts
        assert_same_bits(cupy.ascontiguousarray(one), other)


def test_arrays_that_share_memory(cupy: Any) -> None:
    """A gradient in a parameter's memory is read as it was; shared parameters step in turn."""
    c = coefficients_at(2, VARIANTS[0])

    def stepped(xp: Any, array: Any) -> Any:
        memory = array
        p, q, g = memory[:50], memory[25:75], memory[10:60]
        states = [xp.full(50, 0.25, "float32") for _ in range(4)]
        adam_batch(
            [step_of("p", p, g, *states[:2], None, c), step_of("q", q, g, *states[2:], None, c)]
        )
        return memory

    start = np.random.default_rng(1).normal(size=100).astype(np.float32)
    assert_same_bits(stepped(cupy, on_gpu(cupy, start)), stepped(np, start.copy()))


@pytest.mark.usefixtures("order")
def test_gradients_prepared_on_the_way(cupy: Any, types: Any, case: Any) -> None:
    """They are what NumPy's operations make of them, before the step or in its place."""
    for write, scale, rate in itertools.product((False, True), (None, 64.0, 3.0), (1.0, 0.3)):
        with case(write=write, scale=scale, rate=rate):
            assert_prepared_steps_agree(cupy, types, write, scale, rate)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("gradient", ["float32", "float16"])
def test_masters(cupy: Any, half: str, gradient: str) -> None:
    if half == "bfloat16":
        pytest.importorskip("ml_dtypes")
    assert_masters_agree(cupy, half, gradient)
