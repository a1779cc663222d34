"""A whole training step of a small network of PyTorch's, with each optimizer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from fastadam.bench import arrays
from fastadam.bench.cases import CASES
from fastadam.bench.contender import imported
from fastadam.bench.libraries import Torch
from fastadam.bench.peers import Roster
from fastadam.bench.ratios import described, results
from fastadam.bench.settings import VARIANTS
from fastadam.bench.timing import Plan, Subject, measure

__all__ = ["compare_training"]

# The units of the layers, whose parameters are those of the case "mlp-small".
_UNITS = (64, 100, 100, 10)
_BATCH = 32

# What a step takes that leaves the parameters as they are.
_NONE = "no-optimizer"


def compare_training(roster: Roster, variant: str, n_threads: int, plan: Plan) -> dict[str, Any]:
    """Measure forward pass, backward pass and step together.

    Returns
    -------
    dict
        As ``ratios.compare`` returns it, without a floor. ``no-optimizer`` in it has passes only.
    """
    kinds = roster.ready(variant, ["float32"], n_threads)
    subjects = []
    for kind in kinds:
        assert issubclass(kind, Torch)
        subjects.append(Subject(kind.name, _with_step(kind, variant)))
    subjects.append(Subject(_NONE, _passes(_network())))
    times = measure(subjects, plan)
    subjects.clear()
    gc.collect()
    units = "-".join(map(str, _UNITS))
    named = {"case": f"training step of a {units} network, batch {_BATCH}"}
    case = CASES["mlp-small"]()._replace(fresh=True)
    return {**described(case, variant, "float32", n_threads), **named, **results(times)}


def _network() -> Any:
    """Return the network, of the same numbers every time."""
    torch = imported("torch")
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second, third, last = _UNITS
        return nn.Sequential(
            *(nn.Linear(first, second), nn.ReLU()),
            *(nn.Linear(second, third), nn.ReLU()),
            nn.Linear(third, last),
        )


def _passes(network: Any) -> Callable[[], None]:
    """Return what makes a forward and a backward pass, whose gradients nobody needs."""
    backward = _backward(network)

    def make() -> None:
        backward()
        network.zero_grad()

    return make


def _with_step(kind: type[Torch], variant: str) -> Callable[[], None]:
    """Return what makes both passes and a step."""
    network = _network()
    contender = kind(VARIANTS[variant], arrays.parameters(CASES["mlp-small"](), "float32"))
    # of the network's own parameters, in the place of those
    contender.parameters = list(network.parameters())
    optimizer = contender.make(VARIANTS[variant])
    backward = _backward(network)

    def make() -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()

    return make


def _backward(network: Any) -> Callable[[], None]:
    """Return what makes a forward and a backward pass."""
    torch = imported("torch")
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(_BATCH, _UNITS[0], generator=random)
    labels = torch.randint(0, _UNITS[-1], (_BATCH,), generator=random)
    loss = torch.nn.functional.cross_entropy

    def make() -> None:
        loss(network(inputs), labels).backward()

    return make
