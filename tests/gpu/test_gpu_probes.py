"""Races, looked for on real streams: what is in flight is kept so by other work before it.

Without a GPU the stand-in runs the same, whose streams are late in ways of their own.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from stream_cases import (
    assert_equal,
    capture_of,
    churn,
    numbers,
    pair,
    scaled,
    sent,
    stream_of,
    update,
)

from fastadam.optimizer_hooks import GradientClipping

# About 50 ms on a GPU of today: the host is far ahead by then.
CYCLES = 100_000_000
SPIN = r"""
extern "C" __global__ void spin(long long cycles)
{
    const long long began = clock64();
    while (clock64() - began < cycles)
        ;
}
"""


def busy(cupy: Any) -> None:
    """Let what the current stream is given next wait."""
    # the stand-in, which is no file, is late by itself
    if getattr(cupy, "__file__", None) is not None:
        cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(CYCLES),))


def test_capture_while_an_update_is_in_flight(cupy: Any) -> None:
    """The table of addresses that the update has yet to read is not that of the graph."""
    there, here = pair(cupy)
    first, other = sent(cupy, numbers(1)), sent(cupy, numbers(2))
    with stream_of(cupy) as stream:
        update(there, first)
        update(there, first)
        stream.synchronize()
        busy(cupy)
        update(there, first)
        with capture_of(cupy, stream):
            update(there, other)
    for _ in range(3):
        update(here, numbers(1))
    assert_equal(there, here, cupy)


def test_last_update_outside_of_its_stream(cupy: Any) -> None:
    there, here = pair(cupy)
    there.monitor = here.monitor = True
    gradients = [sent(cupy, numbers(step)) for step in (1, 2)]
    with stream_of(cupy) as stream:
        update(there, gradients[0])
        stream.synchronize()
        busy(cupy)
        update(there, gradients[1])
    for step in (1, 2):
        update(here, numbers(step))
    assert there.last_update == here.last_update


def test_replay_after_an_update_with_another_scale(cupy: Any) -> None:
    there, here = pair(cupy)
    memory = sent(cupy, scaled(numbers(1), 1024.0))
    other = sent(cupy, numbers(2))
    with stream_of(cupy) as stream:
        for _ in range(2):
            update(there, memory, 1024.0)
        with capture_of(cupy, stream) as graph:
            update(there, memory, 1024.0)
        busy(cupy)
        update(there, other)
        there.prepare_replay()
        graph[0].launch()
        update(there, other)
    for step in (1, 1, 2, 1, 2):
        update(here, numbers(step))
    assert_equal(there, here, cupy)


def test_replays_prepared_before_the_first_has_run(cupy: Any) -> None:
    """Each has the scalars of its own step, which are uploaded while others wait to be read."""
    there, here = pair(cupy)
    memory = sent(cupy, numbers(1))
    with stream_of(cupy) as stream:
        for _ in range(2):
            update(there, memory)
            update(here, numbers(1))
        with capture_of(cupy, stream) as graph:
            update(there, memory)
        busy(cupy)
        for step in range(2, 12):
            there.hyperparam.alpha = here.hyperparam.alpha = 0.1 / step
            there.prepare_replay()
            graph[0].launch()
            update(here, numbers(1))
    assert_equal(there, here, cupy)


def test_memory_that_is_had_again_while_updates_are_in_flight(cupy: Any) -> None:
    """Tables and sums that nobody holds on to are not written over before they are read."""
    there, here = pair(cupy)
    for opt in (there, here):
        opt.add_hook(GradientClipping(0.7))
    gradients = [sent(cupy, numbers(step)) for step in range(6)]
    with stream_of(cupy):
        busy(cupy)
        for step in range(6):
            update(there, gradients[step])
            update(here, numbers(step))
            if step == 3:
                # everything is gathered anew
                for opt in (there, here):
                    opt.set_hyperparam("b", beta1=0.8)
            gc.collect()
            churn(cupy)
    assert_equal(there, here, cupy)


def test_updates_on_two_streams_in_turns(cupy: Any) -> None:
    there, here = pair(cupy)
    gradients = [sent(cupy, numbers(step)) for step in range(4)]
    streams = [stream_of(cupy), stream_of(cupy)]
    done = None
    for step in range(4):
        stream = streams[step % 2]
        if done is not None:
            stream.wait_event(done)
        with stream:
            busy(cupy)
            update(there, gradients[step])
        update(here, numbers(step))
        done = stream.record()
    assert_equal(there, here, cupy)


def test_a_copy_is_taken_while_an_update_is_in_flight(cupy: Any) -> None:
    there, here = pair(cupy)
    gradients = sent(cupy, numbers(1))
    with stream_of(cupy):
        busy(cupy)
        update(there, gradients)
    update(here, numbers(1))
    from fastadam.serializers import DictionarySerializer

    ours, theirs = DictionarySerializer(), DictionarySerializer()
    there.serialize(ours)
    here.serialize(theirs)
    for key, value in theirs.target.items():
        assert np.asarray(ours.target[key]).tobytes() == np.asarray(value).tobytes(), key
