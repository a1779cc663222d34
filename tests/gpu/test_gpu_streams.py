"""Streams, graphs and memory that is had again: right in any order that CUDA allows."""

from __future__ import annotations

from typing import Any

import pytest
from stream_cases import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_any_order(cupy: Any, check: Any) -> None:
    check(cupy)
