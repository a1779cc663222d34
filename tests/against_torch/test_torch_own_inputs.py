"""What PyTorch's own tests give its optimizers, given to those here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_pairs import KINDS, snapshot

import fastadam.torch

common = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="this PyTorch has no inputs of its tests"
)


def infos() -> dict[str, Any]:
    return {info.optim_cls.__name__: info for info in common.optim_db}


def usable(options: dict[str, Any]) -> bool:
    return not (options.get("capturable") or options.get("differentiable"))


@pytest.mark.parametrize("kind", KINDS)
def test_inputs(kind: str) -> None:
    info = infos()[kind]
    done = 0
    for given in info.optim_inputs_func(device="cpu", dtype=torch.float32):
        if not usable(given.kwargs):
            with pytest.raises(ValueError, match="=True"):
                getattr(fastadam.torch, kind)([torch.nn.Parameter(torch.ones(1))], **given.kwargs)
            continue
        models = []
        for library in (fastadam.torch, torch.optim):
            torch.manual_seed(3)
            model = torch.nn.Sequential(
                torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
            )
            opt = getattr(library, kind)(model.parameters(), **given.kwargs)
            losses = []
            for _ in range(7):

                def closure(model: Any = model, opt: Any = opt) -> torch.Tensor:
                    opt.zero_grad()
                    loss = (model(torch.linspace(-1, 1, 4)) ** 2).sum()
                    loss.backward()
                    return loss

                losses.append(opt.step(closure).item())
            models.append((model, opt, losses))
        torch.testing.assert_close(models[0][2], models[1][2], rtol=1e-5, atol=1e-7)
        for p, q in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=f"{given.desc}")
        done += 1
    assert done >= 5


@pytest.mark.filterwarnings("error:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind: str) -> None:
    info = infos()[kind]
    done = 0
    for given in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        options = given.optimizer_error_input.kwargs
        params = given.optimizer_error_input.params
        if not usable(options):
            continue
        with pytest.raises(given.error_type, match=given.error_regex):
            getattr(fastadam.torch, kind)(params, **options)
        done += 1
    assert done > 3


@pytest.mark.parametrize("kind", KINDS)
def test_states_after_a_load_into_a_new_one(kind: str) -> None:
    for given in infos()[kind].optim_inputs_func(device="cpu", dtype=torch.float32):
        if not usable(given.kwargs):
            continue
        param = torch.nn.Parameter(torch.ones(3))
        opt = getattr(fastadam.torch, kind)([param], **given.kwargs)
        param.grad = torch.randn(3)
        opt.step()
        again = getattr(fastadam.torch, kind)([param], **given.kwargs)
        again.load_state_dict(opt.state_dict())
        assert str(snapshot(again)) == str(snapshot(opt))
