"""Updates whose streams run late: each check is right in any order that CUDA allows."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Link
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

SHAPES = {"w": (33, 70), "b": (70,), "scale": ()}


def numbers(seed: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape).astype(dtype) for key, shape in SHAPES.items()}


def sent(cupy: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key: cupy.asarray(array) for key, array in arrays.items()}


def pair(
    cupy: Any, make: Callable[[], Any] = fastadam.AMSGrad, dtype: Any = np.float32
) -> tuple[Any, Any]:
    """Return an optimizer on the GPU and one on the CPU."""
    values = numbers(0, dtype)
    return make().setup(sent(cupy, values)), make().setup(values)


def update(opt: Any, gradients: Any, scale: float | None = None) -> None:
    opt.apply_gradients(gradients, loss_scale=scale)


def scaled(gradients: dict[str, np.ndarray], scale: float | None) -> dict[str, np.ndarray]:
    # powers of two: nothing is rounded
    return {key: g * np.float32(scale or 1) for key, g in gradients.items()}


def stream_of(cupy: Any) -> Any:
    """Return a stream that comes after what has been given to the current one, and nothing else."""
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    return stream


@contextmanager
def capture_of(cupy: Any, stream: Any, mode: int | None = None) -> Iterator[list[Any]]:
    """Capture what is done inside; nothing is waited for."""
    graph: list[Any] = []
    with stream:
        stream.begin_capture(mode)
        try:
            yield graph
        finally:
            graph.append(stream.end_capture())


def assert_equal(there: Any, here: Any, cupy: Any) -> None:
    """Compare parameters and states in all bits, when the GPU has done everything."""
    cupy.cuda.runtime.deviceSynchronize()
    assert there.t == here.t
    for path, param in here.parameters.items():
        twin = there.parameters[path]
        ours = {"p": twin.array, **twin.update_rule.state}
        for key, value in {"p": param.array, **param.update_rule.state}.items():
            got = ours[key].get()
            assert got.tobytes() == np.asarray(value).tobytes(), f"{path} {key}"


def churn(cupy: Any) -> list[Any]:
    """Take what is free, as programs do, and write it."""
    return [
        cupy.full(n, 7, np.uint8)
        for _ in range(3)
        for n in (24, 8, 12, 100, 216, 512, 1000, 1028, 2052, 4096, 9240)
    ]


def check_updates(cupy: Any) -> None:
    """One after the other, nothing waited for, with what is free taken in between."""
    there, here = pair(cupy)
    with stream_of(cupy) as stream:
        for step in range(5):
            update(there, sent(cupy, numbers(step)))
            update(here, numbers(step))
            gc.collect()
            churn(cupy)
        stream.synchronize()
    assert_equal(there, here, cupy)


def check_streams_in_turns(cupy: Any) -> None:
    """Each update on another stream, after the one before, whose stream goes on with other work."""
    there, here = pair(cupy)
    for opt in (there, here):
        opt.monitor = True
        opt.add_hook(GradientClipping(0.7))
    streams = [stream_of(cupy) for _ in range(3)]
    gradients = [sent(cupy, numbers(step)) for step in range(7)]
    for stream in streams:
        stream.wait_event(cupy.cuda.Stream.null.record())
    kept = []
    done = cupy.cuda.Stream.null.record()
    for step in range(7):
        stream = streams[step % 3]
        stream.wait_event(done)
        with stream:
            update(there, gradients[step])
        update(here, numbers(step))
        done = stream.record()
        if step == 4:
            # everything is gathered anew
            for opt in (there, here):
                opt.set_hyperparam("b", beta1=0.8)
        for each in streams:
            with each:
                kept.append(churn(cupy))
        if step == 5:
            # the first stream is far ahead of the two others
            streams[0].synchronize()
    report, expected = there.last_update, here.last_update
    assert report.grad_norm == expected.grad_norm
    assert_equal(there, here, cupy)


def check_hooks_on_streams_that_go(cupy: Any) -> None:
    """The number of a stream that is gone goes to the next, while its kernels have yet to run."""
    opts = [pair(cupy) for _ in range(5)]
    for i, (there, here) in enumerate(opts):
        with stream_of(cupy):
            for path, param in there.parameters.items():
                param.grad = cupy.asarray(numbers(i)[path])
            there.call_hook(WeightDecay(0.1))
            there.call_hook(GradientClipping(0.7))
        for path, param in here.parameters.items():
            param.grad = numbers(i)[path]
        here.call_hook(WeightDecay(0.1))
        here.call_hook(GradientClipping(0.7))
        gc.collect()
    cupy.cuda.runtime.deviceSynchronize()
    for there, here in opts:
        for path, param in here.parameters.items():
            assert there.parameters[path].grad.get().tobytes() == param.grad.tobytes(), path


def check_report_elsewhere(cupy: Any) -> None:
    """What an update found is looked at outside of its stream."""
    for dtype, factor in ((np.float32, 1), (np.float64, 1e200)):
        there, here = pair(cupy, dtype=dtype)
        there.monitor = here.monitor = True
        for step in range(3):
            gradients = {k: g * dtype(factor) for k, g in numbers(step, dtype).items()}
            with stream_of(cupy):
                on_gpu = sent(cupy, gradients)
                update(there, on_gpu)
            with np.errstate(over="ignore"):
                update(here, gradients)
            assert there.last_update == here.last_update, step


def check_report_that_stays(cupy: Any) -> None:
    """An update that is refused does not change what the one before it has found."""
    there, here = pair(cupy)
    there.monitor = here.monitor = True
    with stream_of(cupy):
        for step in range(2):
            update(there, sent(cupy, numbers(step)))
            update(here, numbers(step))
        bad = numbers(3)
        bad["b"][3] = np.nan
        for opt, gradients in ((there, sent(cupy, bad)), (here, bad)):
            opt.on_nonfinite = "raise"
            with pytest.raises(FloatingPointError):
                update(opt, gradients)
    assert there.last_update == here.last_update


def check_capture_in_flight(cupy: Any) -> None:
    """A capture begins while an update has yet to run."""
    for clip in (False, True):
        there, here = pair(cupy)
        memory = sent(cupy, numbers(9))
        for opt in (there, here):
            opt.monitor = clip
            if clip:
                opt.add_hook(GradientClipping(0.7))
        with stream_of(cupy) as stream:
            update(there, sent(cupy, numbers(1)))
            # the graph is to read what this has read
            update(there, memory)
            with capture_of(cupy, stream) as graph:
                update(there, memory)
            kept = churn(cupy)
            update(there, sent(cupy, numbers(2)))
            for step in (3, 4):
                for key, array in sent(cupy, numbers(step)).items():
                    memory[key][...] = array
                there.hyperparam.alpha = 0.1 / step
                there.prepare_replay()
                graph[0].launch()
            update(there, sent(cupy, numbers(5)))
        for step in (1, 9, 2, 3, 4, 5):
            here.hyperparam.alpha = {3: 0.1 / 3, 4: 0.1 / 4, 5: 0.1 / 4}.get(step, 0.001)
            update(here, numbers(step))
        assert_equal(there, here, cupy)
        del kept


def check_replays_without_a_wait(cupy: Any) -> None:
    """Many replays are prepared and launched before the first has run."""
    there, here = pair(cupy)
    memory = sent(cupy, numbers(1))
    with stream_of(cupy) as stream:
        for _ in range(2):
            update(there, memory)
            update(here, numbers(1))
        with capture_of(cupy, stream) as graph:
            update(there, memory)
        for step in range(2, 8):
            there.hyperparam.alpha = here.hyperparam.alpha = 0.1 / step
            there.prepare_replay()
            graph[0].launch()
            update(here, numbers(1))
            gc.collect()
            churn(cupy)
    assert_equal(there, here, cupy)


def check_scales_of_graphs(cupy: Any) -> None:
    """Each graph divides by what it was captured with, whatever was divided by since."""
    scales = (1024.0, None, 512.0)
    there, here = pair(cupy)
    memory = {scale: sent(cupy, scaled(numbers(1), scale)) for scale in scales}
    with stream_of(cupy) as stream:
        for scale in (None, 4.0):
            update(there, sent(cupy, scaled(numbers(7), scale)), scale)
            update(here, numbers(7))
        graphs = {}
        for scale in scales:
            with capture_of(cupy, stream) as graph:
                update(there, memory[scale], scale)
            graphs[scale] = graph[0]
        for step, scale in enumerate((*scales, *scales[::-1], 512.0, 1024.0)):
            there.prepare_replay()
            graphs[scale].launch()
            update(here, numbers(1))
            # an update with another scale
            other = (None, 512.0, 64.0)[step % 3]
            update(there, sent(cupy, scaled(numbers(step), other)), other)
            update(here, numbers(step))
    assert_equal(there, here, cupy)


def check_graph_that_outlives_its_setup(cupy: Any) -> None:
    """What a graph reads is there as long as the optimizer is."""
    for clip in (False, True):
        there, here = pair(cupy)
        for opt in (there, here):
            opt.monitor = clip
            if clip:
                opt.add_hook(GradientClipping(0.7))
        arrays = {path: param.array for path, param in there.parameters.items()}
        memory = sent(cupy, numbers(1))
        with stream_of(cupy) as stream:
            for _ in range(2):
                update(there, sent(cupy, numbers(1)))
                update(here, numbers(1))
            with capture_of(cupy, stream) as graph:
                update(there, memory)
            del memory
            there.prepare_replay()
            there.setup(sent(cupy, numbers(5)))
            gc.collect()
            kept = churn(cupy)
            update(there, sent(cupy, numbers(3)))
            graph[0].launch()
            stream.synchronize()
        update(here, numbers(1))
        for path, param in here.parameters.items():
            assert arrays[path].get().tobytes() == param.array.tobytes(), path
        del kept


def check_graph_launched_elsewhere(cupy: Any) -> None:
    """A graph is captured on one stream, made ready on another and launched on a third."""
    there, here = pair(cupy)
    memory = sent(cupy, numbers(1))
    with stream_of(cupy) as first:
        for _ in range(2):
            update(there, memory)
            update(here, numbers(1))
    there.monitor = here.monitor = True
    # has work of its own, and memory that this has yet to write
    capturing = cupy.cuda.Stream(non_blocking=True)
    with capturing:
        churn(cupy)
    with capture_of(cupy, capturing) as graph:
        update(there, memory)
    stream, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    stream.wait_event(first.record())
    for _ in range(2):
        with stream:
            there.prepare_replay()
        # each is where it has been told to be, and no further
        stream.synchronize()
        capturing.synchronize()
        other.wait_event(stream.record())
        graph[0].launch(other)
        update(here, numbers(1))
        # looked at on the default stream, which has waited for none of them
        assert there.last_update == here.last_update
        stream.wait_event(other.record())
    assert_equal(there, here, cupy)


def check_capture_on_another_device(cupy: Any) -> None:
    """Whether an update is captured is a matter of its parameters' device alone."""
    with cupy.cuda.Device(1):
        there, here = pair(cupy)
        memory = sent(cupy, numbers(1))
        stream = stream_of(cupy)
        stream.use()
    update(there, memory)
    update(here, numbers(1))
    # the current device captures, and theirs does not
    other = cupy.cuda.Stream(non_blocking=True)
    with capture_of(cupy, other):
        update(there, memory)
    update(here, numbers(1))
    assert there.t == 2
    # and the other way round
    stream.begin_capture()
    update(there, memory)
    assert there.t == 2
    graph = stream.end_capture()
    with cupy.cuda.Device(1):
        there.prepare_replay()
        graph.launch()
        cupy.cuda.Stream.null.use()
        cupy.cuda.runtime.deviceSynchronize()
    update(here, numbers(1))
    assert_equal(there, here, cupy)


def check_capture_in_global_mode(cupy: Any) -> None:
    """As PyTorch captures: after two updates nothing is allocated or waited for any more."""
    for clip in (False, True):
        there, here = pair(cupy)
        for opt in (there, here):
            opt.monitor = clip
            if clip:
                opt.add_hook(GradientClipping(0.7))
        memory = sent(cupy, numbers(1))
        with stream_of(cupy) as stream:
            for _ in range(2):
                update(there, memory)
                update(here, numbers(1))
            for _ in range(2):
                mode = cupy.cuda.runtime.streamCaptureModeGlobal
                with capture_of(cupy, stream, mode) as graph:
                    update(there, memory)
                there.prepare_replay()
                graph[0].launch()
                update(here, numbers(1))
        assert_equal(there, here, cupy)


def check_scales_that_parameters_hold(cupy: Any) -> None:
    """A replay divides by the scale that a backward pass has left, once, and by no other."""

    def scaled_link(gradient: float, opt: Any, xp: Any) -> None:
        for param in opt.target.params():
            if param.grad is None:
                param.grad = xp.zeros_like(param.array)
            param.grad[...] = gradient * 64
            param._loss_scale = 64.0

    links = [Link(W=(5, 3), b=(3,)) for _ in range(2)]
    for link in links:
        for param in link.params():
            param.array[...] = 0.5
    links[0].to_device("@cupy:0")
    there, here = (fastadam.AMSGrad().setup(link) for link in links)
    with stream_of(cupy) as stream:
        for _ in range(2):
            for opt, xp in ((there, cupy), (here, np)):
                scaled_link(0.25, opt, xp)
                opt.update()
        scaled_link(0.25, there, cupy)
        with capture_of(cupy, stream) as graph:
            there.update()
        for gradient in (0.5, 0.125):
            for opt, xp in ((there, cupy), (here, np)):
                scaled_link(gradient, opt, xp)
            there.prepare_replay()
            graph[0].launch()
            here.update()
            # the gradients are true ones now: nothing is divided again
            there.update()
            here.update()
        for param in there.target.params():
            param._loss_scale = 32.0
        with pytest.raises(RuntimeError, match="capture another"):
            there.prepare_replay()
    assert_equal(there, here, cupy)


def check_reports_of_two_graphs(cupy: Any) -> None:
    """Of two graphs one looks at its gradients: no report is better than another's."""
    there, here = pair(cupy)
    memory = sent(cupy, numbers(1))
    with stream_of(cupy) as stream:
        for _ in range(2):
            update(there, memory)
            update(here, numbers(1))
        graphs = []
        for there.monitor in (False, True):
            with capture_of(cupy, stream) as graph:
                update(there, memory)
            graphs += graph
        there.prepare_replay()
        graphs[0].launch()
        assert there.last_update.grad_norm is None
        assert there.last_update.nonfinite is None
        update(here, numbers(1))
    assert_equal(there, here, cupy)


def check_two_devices(cupy: Any) -> None:
    """Parameters on two GPUs, each on a stream of its own."""
    there, here = pair(cupy)
    params = {key: p.array for key, p in there.parameters.items()}
    with cupy.cuda.Device(1):
        params["b"] = cupy.asarray(numbers(0)["b"])
    there.setup(params)
    streams = [stream_of(cupy)]
    with cupy.cuda.Device(1):
        streams.append(stream_of(cupy))
    there.monitor = here.monitor = True
    for opt in (there, here):
        opt.add_hook(GradientClipping(0.7))
    for step in range(4):
        with streams[0]:
            gradients = sent(cupy, numbers(step))
            with cupy.cuda.Device(1):
                streams[1].use()
                gradients["b"] = cupy.asarray(numbers(step)["b"])
            update(there, gradients)
        with cupy.cuda.Device(1):
            cupy.cuda.Stream.null.use()
        update(here, numbers(step))
        if step % 2:
            assert there.last_update == here.last_update
    with cupy.cuda.Device(1):
        cupy.cuda.runtime.deviceSynchronize()
    assert_equal(there, here, cupy)


def check_moves(cupy: Any) -> None:
    """A model is moved between devices while its update has yet to run."""

    def model() -> Any:
        link = Link(W=(40, 30), b=(30,))
        for param in link.params():
            param.array[...] = numbers(0)["w"].ravel()[: param.array.size].reshape(param.shape)
        return link

    def give(link: Any, xp: Any, step: int) -> None:
        for param in link.params():
            grad = numbers(step)["w"].ravel()[: param.array.size].reshape(param.shape)
            param.grad = xp.asarray(grad)

    there, here = (fastadam.AMSGrad().setup(model()) for _ in range(2))
    places = ("@cupy:0", "@cupy:1", "@cupy:0", "@numpy", "@cupy:1")
    for step, place in enumerate(places):
        there.target.to_device(place)
        number = 1 if place.endswith("1") else 0
        with cupy.cuda.Device(number), cupy.cuda.Stream(non_blocking=True):
            give(there.target, np if place == "@numpy" else cupy, step)
            there.update()
        give(here.target, np, step)
        here.update()
    there.target.to_device("@numpy")
    for ours, theirs in zip(there.target.params(), here.target.params(), strict=True):
        assert ours.array.tobytes() == theirs.array.tobytes()
        state = theirs.update_rule.state
        for key, value in ours.update_rule.state.items():
            value = value.get() if hasattr(value, "get") else value
            assert value.tobytes() == state[key].tobytes()


def check_files_elsewhere(cupy: Any) -> None:
    """Files, comparisons and copies are made outside of the stream, and loads go on inside."""
    from fastadam.serializers import DictionarySerializer

    there, here = pair(cupy)
    with stream_of(cupy):
        for step in range(3):
            update(there, sent(cupy, numbers(step)))
            update(here, numbers(step))
    ours, theirs = DictionarySerializer(), DictionarySerializer()
    there.serialize(ours)
    here.serialize(theirs)
    for key, value in theirs.target.items():
        assert np.asarray(ours.target[key]).tobytes() == np.asarray(value).tobytes(), key
    # copies go on where nobody waits for them
    with stream_of(cupy):
        update(there, sent(cupy, numbers(4)))
    twins = copy.deepcopy(there), pickle.loads(pickle.dumps(there))
    update(here, numbers(4))
    for twin in twins:
        assert_equal(twin, here, cupy)


CHECKS: list[Callable[[Any], None]] = [
    check_updates,
    check_streams_in_turns,
    check_hooks_on_streams_that_go,
    check_report_elsewhere,
    check_report_that_stays,
    check_capture_in_flight,
    check_replays_without_a_wait,
    check_scales_of_graphs,
    check_graph_that_outlives_its_setup,
    check_graph_launched_elsewhere,
    check_capture_on_another_device,
    check_capture_in_global_mode,
    check_scales_that_parameters_hold,
    check_reports_of_two_graphs,
    check_two_devices,
    check_moves,
    check_files_elsewhere,
]
