"""The examples of the page about GPUs run as they are."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "gpu.rst"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_the_examples_run(cupy: Any) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, re.M)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(textwrap.dedent(block), names)
    assert names["opt"].t == 101
    assert names["model"].l1.W.array.shape == (300, 20)
