"""The README says what is true: its example runs, and its commands and files are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

COMMANDS = (
    'pip install -e ".[demo]" && python -m fastadam demo',
    "pip install tox && tox",
)


def example() -> list[str]:
    """The lines of the first block of Python."""
    block = re.search(r"```python\n(.*?)```", README, re.S)
    assert block is not None
    return block[1].splitlines()


def row(start: str) -> str:
    """The code of the row of the table that begins so."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {start}"))
    code = re.search(r"`([^`]+)`", line.split("|")[2])
    assert code is not None
    return code[1]


def problem() -> dict[str, Any]:
    """What the lines of the table are about: the README's example as a function."""
    inputs = np.random.default_rng(0).normal(size=(100, 3))
    outputs = inputs @ [2.0, -1.0, 0.5] + 3.0
    params = {"w": np.zeros(3), "b": np.zeros(())}

    def loss_function(params: Any, inputs: Any, outputs: Any) -> Any:
        return ((inputs @ params["w"] + params["b"] - outputs) ** 2).mean()

    opt = fastadam.Adam(alpha=0.1).setup(params)
    names = {"X": inputs, "y": outputs, "params": params, "opt": opt}
    return {**names, "loss_function": loss_function}


def test_the_example_has_ten_lines() -> None:
    assert len(example()) == 10
    assert all(line.strip() for line in example())


def test_the_example_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(example())
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip() == code.rpartition("  # ")[2]


def test_what_one_looks_for_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(blocks[0], "README.md", "exec"), names)
    before = names["params"]["w"].copy()
    exec(compile(blocks[1], "README.md", "exec"), names)
    opt = names["opt"]
    assert opt.parameters["b"].update_rule.hyperparam.alpha == 0.01
    assert opt.t == 501
    assert names["params"]["w"].tolist() == before.tolist()
    for kind in (fastadam.AMSGrad, fastadam.AdaBound, fastadam.AMSBound):
        with pytest.raises(TypeError, match="weight_decay_rate"):
            kind(weight_decay_rate=0.1)
        kind().weight_decay_rate = 0.1


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_there(command: str) -> None:
    assert README.splitlines().count(command) == 1


def test_there_are_two_commands() -> None:
    blocks = re.findall(r"```\w*\n(.*?)```", README, re.S)
    shell = [line for block in blocks for line in block.splitlines() if line.startswith("pip")]
    assert shell == list(COMMANDS)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).is_file()


def test_chainers_line() -> None:
    before, after = re.findall(
        r"`(from \w+ import optimizers)`",
        next(line for line in README.splitlines() if line.startswith("| Chainer code")),
    )
    assert before == "from chainer import optimizers"
    namespace: dict[str, Any] = {}
    exec(after, namespace)
    assert namespace["optimizers"] is fastadam.optimizers


@pytest.mark.parametrize("library", ["autograd", "jax"])
def test_value_and_grad(library: str) -> None:
    module = pytest.importorskip(library, reason=f"needs {library}")
    code = compile(row("HIPS autograd"), "README.md", "exec")
    namespace = {**problem(), "value_and_grad": module.value_and_grad}
    for _ in range(500):
        exec(code, namespace)
    assert float(namespace["loss"]) < 1e-6
    np.testing.assert_allclose(namespace["params"]["w"], [2.0, -1.0, 0.5], atol=1e-3)


def test_pytorchs_lines() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    line = next(line for line in README.splitlines() if line.startswith("| PyTorch |"))
    theirs, ours, setup, update = re.findall(r"`([^`]* [^`]*)`", line)[:4]
    model = torch.nn.Linear(3, 1)
    namespace: dict[str, Any] = {"fastadam": fastadam, "model": model}
    exec(theirs, namespace)
    before = namespace["AdamW"]
    exec(ours, namespace)
    assert issubclass(namespace["AdamW"], before)
    weight = model.weight.detach().clone()
    x, y = torch.ones(2, 3), torch.full((2, 1), -100.0)
    namespace.update(x=x, y=y, loss_function=lambda x, y: ((model(x) - y) ** 2).mean())
    exec(setup, namespace)
    exec(update, namespace)
    torch.testing.assert_close(model.weight.detach(), weight - 0.001)


def test_the_trap() -> None:
    assert "`weight_decay=0.01` at `lr=1e-3` is `weight_decay_rate=1e-5`" in README
    arrays = [np.ones(5), np.ones(5)]
    arguments: list[dict[str, Any]] = [
        {"weight_decay_rate": 1e-5},
        {"weight_decay_rate": 0.01, "decay_mode": "alpha"},
    ]
    for array, argument in zip(arrays, arguments, strict=True):
        opt = fastadam.AdamW(alpha=1e-3, **argument).setup(array)
        for _ in range(10):
            opt.apply_gradients(np.zeros(5))
    np.testing.assert_allclose(arrays[0], 0.99999**10, rtol=1e-14)
    np.testing.assert_allclose(arrays[1], arrays[0], rtol=1e-14)
    assert fastadam.AdamW().weight_decay_rate == 0
