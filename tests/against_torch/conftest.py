"""The tests beside PyTorch, which are collected where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    @pytest.fixture(autouse=True)
    def _seeded() -> Iterator[None]:
        """The same numbers in every run, and the number of threads as it was."""
        torch.manual_seed(0)
        n_threads = torch.get_num_threads()
        yield
        torch.set_num_threads(n_threads)
