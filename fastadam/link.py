"""The building blocks of models: `Link`, `Chain` and `ChainList`."""

from __future__ import annotations

from fastadam._link import Link
from fastadam.chain import Chain, ChainList

__all__ = ["Chain", "ChainList", "Link"]
