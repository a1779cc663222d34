"""The program on the page about migrating does what the page says."""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam

PAGE = Path(__file__).parents[2] / "docs" / "migrating.rst"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")

OURS = "from fastadam import optimizers  # was: from chainer import optimizers"
THEIRS = "from chainer import optimizers"


def program(line: str) -> Callable[..., Any]:
    """The page's program with this line as the import of its optimizer."""
    found = re.search(
        r"^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", PAGE.read_text(encoding="utf-8"), re.M
    )
    assert found is not None
    source = textwrap.dedent(found[1])
    assert source.count(OURS) == 1
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(source.replace(OURS, line), names)
    main: Callable[..., Any] = names["main"]
    return main


def log(out: Path) -> list[str]:
    """The lines of a log but for the times."""
    return [line for line in (out / "log").read_text().splitlines() if "elapsed_time" not in line]


def bits(trainer: Any) -> dict[str, bytes]:
    """Every parameter and state of a run."""
    optimizer = trainer.updater.get_optimizer("main")
    found: dict[str, bytes] = {}
    for path, param in optimizer.target.namedparams():
        arrays = {"p": param.array, **param.update_rule.state}
        found |= {f"{path}:{key}": array.tobytes() for key, array in arrays.items()}
    return found


def run(line: str, out: Path, *args: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program(line)(str(out), *args)


def test_the_log_is_the_same_line_by_line(tmp_path: Path) -> None:
    ours, theirs = run(OURS, tmp_path / "ours", 4), run(THEIRS, tmp_path / "theirs", 4)
    assert log(tmp_path / "ours") == log(tmp_path / "theirs")
    assert bits(ours) == bits(theirs)
    losses = [entry["main/loss"] for entry in json.loads((tmp_path / "ours" / "log").read_text())]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("before", "after"), [(THEIRS, OURS), (OURS, THEIRS)])
def test_a_snapshot_of_one_resumes_under_the_other(tmp_path: Path, before: str, after: str) -> None:
    whole = run(THEIRS, tmp_path / "whole", 5)
    run(before, tmp_path / "first", 2)
    resumed = run(after, tmp_path / "second", 5, str(tmp_path / "first" / "snapshot"))
    assert resumed.updater.iteration == whole.updater.iteration
    assert log(tmp_path / "second") == log(tmp_path / "whole")
    assert bits(resumed) == bits(whole)


def test_the_other_library_s_class_is_used(tmp_path: Path) -> None:
    trainer = run(OURS, tmp_path, 1)
    assert type(trainer.updater.get_optimizer("main")).__module__ == "fastadam.optimizers.variants"
    assert np.isfinite(trainer.updater.get_optimizer("main").target.predictor.l1.W.array).all()


@pytest.mark.parametrize("line", [THEIRS, OURS])
def test_optimizer_and_model_out_of_a_snapshot(tmp_path: Path, line: str) -> None:
    trainer = run(line, tmp_path, 2)
    other = run(OURS, tmp_path / "other", 1)
    optimizer = other.updater.get_optimizer("main")
    assert bits(other) != bits(trainer)
    load_npz = fastadam.serializers.load_npz
    load_npz(tmp_path / "snapshot", optimizer.target, path="updater/model:main/")
    load_npz(tmp_path / "snapshot", optimizer, path="updater/optimizer:main/")
    assert bits(other) == bits(trainer)
    assert optimizer.t == trainer.updater.get_optimizer("main").t
