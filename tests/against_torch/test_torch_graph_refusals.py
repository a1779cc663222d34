"""Steps that cannot be captured in CUDA graphs, and what graphs do not follow."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch_graph_twins import Twins, compile_kernels, gpu_that_captures
from torch_pairs import same, snapshot
from torch_pretended_gpu import Second, moved

import fastadam.torch


@pytest.fixture(scope="module")
def _kernels() -> None:
    compile_kernels()


@pytest.fixture(autouse=True)
def gpu(_kernels: None) -> Iterator[Any]:
    with gpu_that_captures() as pretended:
        yield pretended


@pytest.mark.parametrize(
    "change",
    [
        lambda opt: opt.param_groups[0].update(maximize=True),
        lambda opt: opt.param_groups[0].update(amsgrad=True),
        lambda opt: opt.param_groups[0].update(betas=(0.0, 0.9)),
        lambda opt: setattr(opt, "max_grad_norm", 2.0),
        lambda opt: setattr(opt, "max_grad_norm", None),
        lambda opt: setattr(opt, "max_grad_value", 2.0),
        lambda opt: opt.load_state_dict(opt.state_dict()),
        lambda opt: opt.param_groups[0]["params"].pop(),
        lambda opt: setattr(opt.param_groups[0]["params"][0], "data", moved(torch.ones(3, 4))),
    ],
    ids=["maximize", "amsgrad", "betas", "norm", "no norm", "value", "load", "removed", "data"],
)
def test_changes_that_a_graph_does_not_follow(gpu: Any, change: Callable[[Any], Any]) -> None:
    twins = Twins(gpu, "AdamW", lr=0.1, max_grad_norm=1.0)
    for _ in range(2):
        twins.step()
    graph = twins.capture()
    twins.replay(graph)
    change(twins.captured)
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match="make a step, and capture another"):
        twins.captured.prepare_replay()
    assert same(snapshot(twins.captured), before)
    twins.gradients()
    twins.captured.step()


def test_what_has_not_been_described_is_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.gradients()
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match=r"on cuda:0: .* Make a step with gradients of the same"):
        twins.capture()
    assert same(snapshot(twins.captured), before)
    twins.captured.step()
    twins.params[0][1].grad = None
    with pytest.raises(RuntimeError, match="Make a step with gradients of the same"):
        twins.capture()
    with pytest.raises(RuntimeError, match="no captured step"):
        twins.captured.prepare_replay()


def test_a_norm_that_has_not_been_made_before_is_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    before = snapshot(twins.captured)
    twins.captured.max_grad_norm = 1.0
    with pytest.raises(RuntimeError, match="make one more such update"):
        twins.capture()
    assert same(snapshot(twins.captured), before)
    twins.plain.max_grad_norm = 1.0
    twins.step()
    twins.check()
    twins.replay(twins.capture())
    twins.check()


def test_numbers_on_the_gpu_are_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    twins.captured.param_groups[0]["lr"] = moved(torch.tensor(0.1))
    with pytest.raises(RuntimeError, match=r"'lr' of param_groups\[0\] is a tensor on a GPU"):
        twins.capture()
    twins.captured.param_groups[0]["lr"] = 0.1
    twins.step()
    twins.captured.param_groups[0].update(lr=0.1, betas=(moved(torch.tensor(0.9)), 0.99))
    with pytest.raises(RuntimeError, match=r"'betas' of param_groups\[0\] is a tensor on a GPU"):
        twins.capture()
    for opt in (twins.captured, twins.plain):
        opt.param_groups[0].update(lr=torch.tensor(0.1), betas=(0.9, 0.999))
    twins.step()
    graph = twins.capture()
    for opt in (twins.captured, twins.plain):
        opt.param_groups[0]["lr"] = torch.tensor(0.03)
    twins.replay(graph)
    assert same(*([p.detach() for p in params] for params in twins.params))


def test_scaling_is_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    for name in ("found_inf", "grad_scale"):
        setattr(twins.captured, name, moved(torch.tensor(0.0)))
        with pytest.raises(RuntimeError, match="with GradScaler the host decides"):
            twins.capture()
        delattr(twins.captured, name)


def test_parameters_in_several_places_are_refused(gpu: Any) -> None:
    here, there = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    for other in (here, moved(there, Second)):
        twins = Twins(gpu, lr=0.1)
        twins.captured.add_param_group({"params": [other]})
        other.grad = torch.ones_like(other)
        twins.step()
        with pytest.raises(RuntimeError, match="of parameters on one GPU that share"):
            twins.capture()
        twins.captured.step()


def test_parts_in_backward_are_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    handle = fastadam.torch.step_in_backward(twins.captured, bucket_bytes=1)
    twins.captured.zero_grad()
    loss = sum((p * p).sum() for p in twins.params[0])
    with pytest.raises(RuntimeError, match="not in parts by step_in_backward"):
        twins.capture(loss.backward)
    handle.remove()


def test_prepared_outside_of_captures(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match="while a CUDA graph is captured"):
        twins.capture(twins.captured.prepare_replay)
    assert same(snapshot(twins.captured), before)
    twins.replay(graph)
    twins.check()


def test_copies_have_no_graphs(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    with pytest.raises(RuntimeError, match="no captured step"):
        copy.copy(twins.captured).prepare_replay()
    assert not {"_graphs", "_replay"} & twins.captured.__getstate__().keys()
    twins.replay(graph)
    twins.check()


def test_there_is_nothing_to_replay_on_a_cpu() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = fastadam.torch.AdamW([p])
    p.grad = torch.ones(3)
    opt.step()
    opt = pickle.loads(pickle.dumps(opt))
    with pytest.raises(RuntimeError, match="no captured step to replay"):
        opt.prepare_replay()


def test_a_parameter_that_was_left_behind(gpu: Any) -> None:
    """It is at another step than all others, which the graph has one number for."""
    twins = Twins(gpu, lr=0.1)
    twins.step()
    twins.capture()
    for params, opt in zip(twins.params, (twins.captured, twins.plain), strict=True):
        kept, params[0].grad = params[0].grad, None
        opt.step()
        params[0].grad = kept
    with pytest.raises(RuntimeError, match="make a step, and capture another"):
        twins.captured.prepare_replay()
    twins.step()
    twins.check()


def test_graphs_of_different_parameters(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    twins.capture()
    for params, opt in zip(twins.params, (twins.captured, twins.plain), strict=True):
        params[0].grad = None
        opt.step()
        opt.step()
    graph = twins.capture()
    for params in twins.params:
        params.pop(0)
    before = snapshot(twins.captured)
    with pytest.raises(RuntimeError, match="which of their graphs comes next is not known"):
        twins.captured.prepare_replay()
    assert same(snapshot(twins.captured), before)
    twins.captured.forget_graphs()
    twins.replay(twins.capture())
    twins.check()
    del graph


def test_parameters_that_share_memory_with_gradients_are_refused(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.gradients()
    p = twins.params[0][0]
    p.grad = p.detach()
    twins.captured.step()
    with pytest.raises(RuntimeError, match="that share no memory with one another or with grad"):
        twins.capture()


def test_a_capture_that_is_refused_leaves_the_one_before(gpu: Any) -> None:
    twins = Twins(gpu, lr=0.1)
    twins.step()
    graph = twins.capture()
    twins.captured.param_groups[0]["lr"] = moved(torch.tensor(0.1))
    with pytest.raises(RuntimeError, match="is a tensor on a GPU"):
        twins.capture()
    twins.captured.param_groups[0]["lr"] = 0.1
    twins.replay(graph)
    twins.check()
