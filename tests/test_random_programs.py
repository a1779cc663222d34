"""Random programs beside a model: what changes a target, looks, and updates, in any order.

A program is a list of small steps, each of which can be left out: what differs is shortened until
nothing can be, and shown. ``FASTADAM_CAMPAIGN=on`` runs 20,000 of them.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from random_programs import Program

Step = tuple[str, int, int, int]

STEPS = [
    "delete",
    "reorder",
    "reorder",
    "rebind",
    "rebind",
    "rebind_all",
    "swap",
    "add",
    "tie",
    "other_container",
    "write",
    "frozen",
    "hyperparam",
    "hyperparam",
    "amsgrad",
    "hook",
    "hook",
    "rule_hook",
    "settings",
    "copied",
    "setup_again",
    "refused",
]


def steps_of(seed: int) -> list[Step]:
    """The text of a program: mostly updates, with looks and changes between them."""
    chosen = random.Random(seed)
    steps: list[Step] = []
    for _ in range(chosen.choice([8, 16, 30])):
        name = chosen.choices(["update", "look", "change"], [5, 2, 3])[0]
        name = chosen.choice(STEPS) if name == "change" else name
        steps.append((name, *(chosen.randrange(1000) for _ in range(3))))
        if name == "update" and chosen.random() < 0.5:
            # again, as it is kept
            steps += [("update", 0, 0, chosen.randrange(1000)) for _ in range(2)]
    return steps


def failure(seed: int, steps: list[Step], folder: Path) -> str | None:
    """Run a program; say what differs."""
    program = Program(seed, folder)
    try:
        for step in steps:
            name, *numbers = step
            getattr(program, name)(*numbers)
        program.check_states()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shortened(seed: int, steps: list[Step], folder: Path) -> list[Step]:
    """Leave out steps as long as something differs still."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if failure(seed, fewer, folder) is not None:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def run_programs(seeds: range, folder: Path) -> None:
    for seed in seeds:
        steps = steps_of(seed)
        if failure(seed, steps, folder) is not None:
            short = shortened(seed, steps, folder)
            program = "\n".join(map(repr, short))
            raise AssertionError(
                f"program {seed} ({Program(seed, folder).kind}):\n{program}\n"
                f"{failure(seed, short, folder)}"
            )


def test_random_programs(tmp_path: Path) -> None:
    run_programs(range(300), tmp_path)


@pytest.mark.skipif(os.environ.get("FASTADAM_CAMPAIGN") != "on", reason="tox -e campaign")
def test_twenty_thousand_random_programs(tmp_path: Path) -> None:
    run_programs(range(1000, 21000), tmp_path)
