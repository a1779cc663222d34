"""The examples of the page about GPUs run as they are."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam

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
    here = {"w": np.ones((1000, 100), "f4"), "b": np.zeros(100, "f4")}
    # the page steps the same parameters before
    given = {"w": np.full((1000, 100), 0.1, "f4"), "b": np.ones(100, "f4")}
    fastadam.AdamW(alpha=0.001, weight_decay_rate=1e-5).setup(here).apply_gradients(given)
    opt = fastadam.Adam().setup(here)
    for _ in range(101):
        opt.apply_gradients(given)
    for key, array in here.items():
        assert names["params"][key].get().tobytes() == array.tobytes(), key
    assert names["model"].l1.W.array.shape == (300, 20)
