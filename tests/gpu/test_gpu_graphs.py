"""Updates captured in CUDA graphs: replays make the steps that updates would have made."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import Chain, Link
from fastadam.kernels.gpu.uploads import SPARE
from fastadam.optimizer_hooks import GradientClipping, WeightDecay

SHAPES = {"w": (33, 70), "b": (70,), "scale": ()}


def weights(xp: Any, seed: int = 0, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {key: xp.asarray(rng.normal(size=s).astype(dtype)) for key, s in SHAPES.items()}


def capture(cupy: Any, function: Callable[[], None]) -> tuple[Any, Any]:
    """Return a graph of what a function launches, and the stream; nothing is waited for."""
    stream = cupy.cuda.Stream(non_blocking=True)
    # it goes on from where the tests' arrays are made, and this is all that it does
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        stream.begin_capture()
        try:
            function()
        finally:
            graph = stream.end_capture()
    return graph, stream


def put(arrays: dict[str, Any], values: dict[str, Any]) -> None:
    for key, array in arrays.items():
        array[...] = values[key]


def assert_same(one: Any, other: Any) -> None:
    """Compare parameters and states of two optimizers, in all bits."""
    assert one.t == other.t
    for path, param in one.parameters.items():
        twin = other.parameters[path]
        assert param.update_rule.t == twin.update_rule.t
        pairs = [(param.array, twin.array)]
        pairs += [(v, twin.update_rule.state[k]) for k, v in param.update_rule.state.items()]
        for a, b in pairs:
            assert a.get().tobytes() == b.get().tobytes(), path


@pytest.mark.parametrize(
    "make",
    [
        lambda: fastadam.Adam(alpha=0.01, beta1=0.8),
        lambda: fastadam.AdamW(weight_decay_rate=0.1, eta=0.5, decay_mode="eta"),
        lambda: fastadam.AMSBound(final_lr=0.2, gamma=0.01),
    ],
    ids=["adam", "adamw", "amsbound"],
)
@pytest.mark.parametrize("clip", [False, True])
def test_replays_are_the_steps_of_updates(cupy: Any, make: Any, clip: bool) -> None:
    captured, plain = make().setup(weights(cupy)), make().setup(weights(cupy))
    for opt in (captured, plain):
        if clip:
            opt.add_hook(GradientClipping(0.5))
            opt.monitor = True
    gradients = weights(cupy, 1)
    for opt in (captured, plain):
        opt.apply_gradients(gradients)
    before = captured.t
    graph, stream = capture(cupy, lambda: captured.apply_gradients(gradients))
    assert captured.t == before
    assert_same(captured, plain)
    for seed in range(2, 7):
        new = weights(cupy, seed)
        plain.hyperparam.alpha = captured.hyperparam.alpha = 0.01 / seed
        stream.wait_event(cupy.cuda.get_current_stream().record())
        with stream:
            put(gradients, new)
            captured.prepare_replay()
            graph.launch()
            stream.synchronize()
        plain.apply_gradients(new)
        assert_same(captured, plain)
        assert captured.last_update == plain.last_update


def test_updates_and_replays_take_turns(cupy: Any) -> None:
    captured, plain = (fastadam.AMSGrad(alpha=0.1).setup(weights(cupy)) for _ in range(2))
    gradients = weights(cupy, 1)
    for opt in (captured, plain):
        opt.apply_gradients(gradients)
    graph, stream = capture(cupy, lambda: captured.apply_gradients(gradients))
    for seed in range(6):
        new = weights(cupy, seed)
        stream.wait_event(cupy.cuda.get_current_stream().record())
        with stream:
            if seed % 3:
                put(gradients, new)
                captured.prepare_replay()
                graph.launch()
            else:
                captured.apply_gradients(new)
            stream.synchronize()
        plain.apply_gradients(new)
    assert_same(captured, plain)


def test_two_graphs_of_one_optimizer(cupy: Any) -> None:
    captured, plain = (fastadam.Adam(alpha=0.1).setup(weights(cupy)) for _ in range(2))
    sets = [weights(cupy, 1), weights(cupy, 2)]
    for opt in (captured, plain):
        opt.apply_gradients(sets[0])
    graphs = [capture(cupy, lambda g=g: captured.apply_gradients(g)) for g in sets]
    for which in (0, 1, 1, 0):
        graph, stream = graphs[which]
        with stream:
            captured.prepare_replay()
            graph.launch()
            stream.synchronize()
        plain.apply_gradients(sets[which])
    assert_same(captured, plain)


def test_gradients_that_parameters_hold_are_unscaled_in_the_graph(cupy: Any) -> None:
    def model() -> Any:
        link = Link(W=(5, 3), b=(3,))
        for param in link.params():
            param.array[...] = 0.5
        link.to_device("@cupy:0")
        return Chain(l1=link)

    def scaled(opt: Any, gradient: float) -> None:
        for param in opt.target.params():
            if param.grad is None:
                param.grad = cupy.zeros_like(param.array)
            param.grad[...] = gradient * 64
            param._loss_scale = 64.0

    captured, plain = (fastadam.Adam(alpha=0.1).setup(model()) for _ in range(2))
    for opt in (captured, plain):
        opt.loss_scaling(scale=64.0)
        for _ in range(2):
            scaled(opt, 0.25)
            opt.update()
    scaled(captured, 0.5)
    graph, stream = capture(cupy, captured.update)
    for gradient in (0.5, 0.125):
        with stream:
            scaled(captured, gradient)
            captured.prepare_replay()
            graph.launch()
            stream.synchronize()
        scaled(plain, gradient)
        plain.update()
        assert_same(captured, plain)
        assert captured.last_update == plain.last_update
        for one, other in zip(captured.target.params(), plain.target.params(), strict=True):
            assert one.grad.get().tobytes() == other.grad.get().tobytes()


def test_a_replay_costs_one_upload_and_one_kernel(stand_in: Any) -> None:
    from cuda_on_cpu.memory import counting

    opt = fastadam.Adam().setup({str(i): stand_in.zeros(50, np.float32) for i in range(40)})
    gradients = {str(i): stand_in.ones(50, np.float32) for i in range(40)}
    opt.apply_gradients(gradients)
    graph, stream = capture(stand_in, lambda: opt.apply_gradients(gradients))
    with counting() as counts, stream:
        opt.prepare_replay()
        graph.launch()
    assert counts.uploads == 1
    assert counts.kernels == ["adam"]
    assert counts.synchronisations == 0


def not_captured(cupy: Any, opt: Any, gradients: Any, match: str) -> None:
    t = opt.t
    with pytest.raises(RuntimeError, match=match):
        capture(cupy, lambda: opt.apply_gradients(gradients))
    assert opt.t == t
    with pytest.raises(RuntimeError, match="no captured update"):
        opt.prepare_replay()


def test_what_cannot_be_captured_is_refused(cupy: Any) -> None:
    gradients = weights(cupy, 1)

    def fresh() -> Any:
        return fastadam.Adam().setup(weights(cupy))

    not_captured(cupy, fresh(), gradients, "make one such update before")
    dynamic = fresh()
    dynamic.loss_scaling()
    dynamic.apply_gradients(gradients)
    not_captured(cupy, dynamic, gradients, "dynamic loss scaling")
    careful = fresh()
    careful.on_nonfinite = "skip"
    careful.apply_gradients(gradients)
    not_captured(cupy, careful, gradients, "on_nonfinite = 'skip'")
    hooked = fresh()
    hooked.add_hook(WeightDecay(0.1))
    hooked.apply_gradients(gradients)
    not_captured(cupy, hooked, gradients, "GradientClipping as the only hook")
    mixed = fastadam.Adam().setup({"gpu": cupy.zeros(3), "cpu": np.zeros(3)})
    both = {"gpu": cupy.ones(3), "cpu": np.ones(3)}
    mixed.apply_gradients(both)
    not_captured(cupy, mixed, both, "on one GPU")


@pytest.mark.parametrize(
    "change",
    [
        lambda opt: opt.add_hook(GradientClipping(1.0)),
        lambda opt: opt.loss_scaling(scale=4.0),
        lambda opt: setattr(opt, "monitor", True),
        lambda opt: setattr(opt, "on_nonfinite", "raise"),
        lambda opt: opt.set_hyperparam("w", alpha=0.5),
        lambda opt: opt.parameters["b"].update_rule.init_state(opt.parameters["b"]),
        lambda opt: setattr(opt.parameters["b"].update_rule, "t", 9),
        lambda opt: setattr(opt.parameters["b"], "array", opt.parameters["b"].array.copy()),
        lambda opt: opt.hyperparam.__setattr__("amsgrad", True),
        lambda opt: setattr(opt.parameters["b"].update_rule, "enabled", False),
    ],
)
def test_what_has_changed_since_is_not_replayed(cupy: Any, change: Any) -> None:
    opt = fastadam.Adam().setup(weights(cupy))
    gradients = weights(cupy, 1)
    opt.apply_gradients(gradients)
    capture(cupy, lambda: opt.apply_gradients(gradients))
    change(opt)
    with pytest.raises(RuntimeError, match="capture another"):
        opt.prepare_replay()
    assert opt.t == 1


def test_a_launch_that_was_not_prepared_steps_nothing(cupy: Any) -> None:
    captured, plain = (fastadam.Adam(alpha=0.1).setup(weights(cupy)) for _ in range(2))
    gradients = weights(cupy, 1)
    for opt in (captured, plain):
        opt.apply_gradients(gradients)
    graph, stream = capture(cupy, lambda: captured.apply_gradients(gradients))
    for _ in range(2):
        with stream:
            graph.launch()
            stream.synchronize()
        assert_same(captured, plain)
        with stream:
            captured.prepare_replay()
            graph.launch()
            stream.synchronize()
        plain.apply_gradients(gradients)
        assert_same(captured, plain)


def test_captures_one_after_the_other_where_nothing_can_be_allocated(cupy: Any) -> None:
    captured, plain = (fastadam.Adam(alpha=0.1).setup(weights(cupy)) for _ in range(2))
    for opt in (captured, plain):
        for _ in range(2):
            opt.apply_gradients(weights(cupy, 1))
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    sets = [weights(cupy, seed) for seed in range(SPARE)]
    graphs = []
    with stream:
        for gradients in sets:
            stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
            captured.apply_gradients(gradients)
            graphs.append(stream.end_capture())
        for which in (2, 0, 3, 1):
            captured.prepare_replay()
            graphs[which].launch()
        stream.synchronize()
    for which in (2, 0, 3, 1):
        plain.apply_gradients(sets[which])
    assert_same(captured, plain)


def test_graphs_that_are_forgotten(cupy: Any) -> None:
    opt = fastadam.Adam().setup(weights(cupy))
    gradients = weights(cupy, 1)
    opt.apply_gradients(gradients)
    _, stream = capture(cupy, lambda: opt.apply_gradients(gradients))
    kept = [weakref.ref(array) for array in gradients.values()]
    gradients.clear()
    assert all(array() is not None for array in kept)
    opt.forget_graphs()
    # the last update still has them, and the next one has others
    opt.apply_gradients(weights(cupy, 2))
    assert all(array() is None for array in kept)
    with stream, pytest.raises(RuntimeError, match="no captured update"):
        opt.prepare_replay()


def test_preparing_while_a_graph_is_captured(cupy: Any) -> None:
    opt = fastadam.Adam().setup(weights(cupy))
    gradients = weights(cupy, 1)
    opt.apply_gradients(gradients)
    capture(cupy, lambda: opt.apply_gradients(gradients))
    with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
        capture(cupy, opt.prepare_replay)
    assert opt.t == 1


def test_a_copy_has_no_graph(cupy: Any) -> None:
    opt = fastadam.Adam().setup(weights(cupy))
    opt.monitor = True
    gradients = weights(cupy, 1)
    opt.apply_gradients(gradients)
    _, stream = capture(cupy, lambda: opt.apply_gradients(gradients))
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert twin.last_update == opt.last_update
        with pytest.raises(RuntimeError, match="no captured update"):
            twin.prepare_replay()
    with stream:
        opt.prepare_replay()


def test_there_is_nothing_to_replay_on_a_cpu() -> None:
    opt = fastadam.Adam()
    with pytest.raises(RuntimeError, match="setup"):
        opt.prepare_replay()
    opt.setup({"w": np.zeros(2)})
    opt.apply_gradients({"w": np.ones(2)})
    with pytest.raises(RuntimeError, match="no captured update"):
        opt.prepare_replay()
