"""The building blocks of models: `Link`, `Chain` and `ChainList`."""

from __future__ import annotations

from fastadam.model.chain import Chain, ChainList
from fastadam.model.link import Link

__all__ = ["Chain", "ChainList", "Link"]
