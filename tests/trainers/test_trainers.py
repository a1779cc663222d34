"""Training scripts of three trainers, in which the import of the optimizer is changed."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import fastadam.torch
from fastadam.torch.stepping import KernelStep

pytestmark = [
    # Lightning's use of PyTorch, and what it says of a run that goes on in another folder
    pytest.mark.filterwarnings(
        "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"
    ),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]

LIBRARIES = [torch.optim, fastadam.torch]


class Trainer(NamedTuple):
    """One of the scripts beside this file, each of which trains for three epochs."""

    name: str
    # what the optimizer has saved, in a checkpoint
    saved: Callable[[Path], Any]
    # clipping by the trainer, and in the place of that by the optimizer
    clipping: dict[str, str]


def of(file: str) -> Callable[[Path], Any]:
    return lambda path: torch.load(path / file, weights_only=True)


LIGHTNING = Trainer(
    "lightning",
    lambda path: torch.load(path, weights_only=True)["optimizer_states"][0],
    {
        "gradient_clip_val=0.5": "gradient_clip_val=None",
        "decay=0.1": "decay=0.1, max_grad_norm=0.5",
    },
)
ACCELERATE = Trainer(
    "accelerate",
    of("optimizer.bin"),
    {
        "if accelerator.sync_gradients:": "if False:",
        "weight_decay=0.1": "weight_decay=0.1, max_grad_norm=0.5",
    },
)
TRANSFORMERS = Trainer(
    "transformers",
    of("optimizer.pt"),
    {"max_grad_norm=0.7": "max_grad_norm=0.0", '{"lr"': '{"max_grad_norm": 0.7, "lr"'},
)


@pytest.fixture(params=[LIGHTNING, ACCELERATE, TRANSFORMERS], ids=lambda trainer: trainer.name)
def trainer(request: pytest.FixtureRequest) -> Trainer:
    pytest.importorskip(request.param.name, reason=f"needs {request.param.name}")
    return request.param


def script(trainer: Trainer, library: Any, changes: dict[str, str] | None = None) -> Any:
    """Load a script with AdamW from a library, and with other changes."""
    path = Path(__file__).with_name(f"with_{trainer.name}.py")
    text = path.read_text(encoding="utf-8")
    line = "from torch.optim import AdamW\n"
    for old, new in {
        line: line.replace("torch.optim", library.__name__),
        **(changes or {}),
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    module = types.ModuleType(path.stem)
    exec(compile(text, str(path), "exec"), vars(module))
    return module


def close(found: list[float], expected: list[float]) -> None:
    assert len(found) == len(expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_curves_and_checkpoints(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    step = KernelStep.step_gradients
    monkeypatch.setattr(KernelStep, "step_gradients", lambda self: (made.append(self), step(self)))
    expected, their_paths = script(trainer, torch.optim).train(tmp_path / "theirs", None)
    assert not made
    found, our_paths = script(trainer, fastadam.torch).train(tmp_path / "ours", None)
    assert len(made) == int(made[0].last_update.t) > 20
    close(found, expected)
    assert expected[-1] < expected[0] * 0.7
    for paths in zip(our_paths, their_paths, strict=True):
        ours, theirs = map(trainer.saved, paths)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (1, 1)])
def test_each_goes_on_from_a_checkpoint_of_the_other(
    trainer: Trainer, first: int, second: int, tmp_path: Path
) -> None:
    losses, paths = script(trainer, LIBRARIES[first]).train(tmp_path / "first", None)
    again, _ = script(trainer, LIBRARIES[second]).train(tmp_path / "second", paths[1])
    rest = losses[len(losses) * 2 // 3 :]
    close(again[-len(rest) :], rest)


def test_torch_then_ours_then_torch(trainer: Trainer, tmp_path: Path) -> None:
    losses, paths = script(trainer, torch.optim).train(tmp_path / "0", None)
    _, paths = script(trainer, fastadam.torch).train(tmp_path / "1", paths[0])
    again, _ = script(trainer, torch.optim).train(tmp_path / "2", paths[1])
    rest = losses[len(losses) * 2 // 3 :]
    close(again[-len(rest) :], rest)


def test_the_optimizer_clips_in_the_place_of_the_trainer(trainer: Trainer, tmp_path: Path) -> None:
    expected, _ = script(trainer, torch.optim).train(tmp_path / "theirs", None)
    found, _ = script(trainer, fastadam.torch, trainer.clipping).train(tmp_path / "ours", None)
    close(found, expected)
    changes = dict([next(iter(trainer.clipping.items()))])
    unclipped, _ = script(trainer, torch.optim, changes).train(tmp_path / "unclipped", None)
    assert max(abs(a - b) for a, b in zip(unclipped, expected, strict=True)) > 0.01
