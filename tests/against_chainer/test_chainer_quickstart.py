"""The example of the quick start with Chainer's own training loop runs and learns."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

QUICKSTART = Path(__file__).parents[2] / "docs" / "quickstart.rst"


def test_the_chainer_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")
    text = QUICKSTART.read_text(encoding="utf-8")
    block = re.search(r"\.\. code-block:: python\n\n((?:   import chainer\n)(?:   .*\n|\n)+)", text)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(inspect.cleandoc(block[1]), namespace)
    log = namespace["trainer"].get_extension("LogReport").log
    assert log[-1]["main/accuracy"] > 0.9 > log[0]["main/accuracy"]
    assert (tmp_path / "result" / "snapshot_iter_300").is_file()
