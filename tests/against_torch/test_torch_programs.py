"""Random programs over the optimizers here and PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch_programs


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_programs(first: int) -> None:
    torch.set_num_threads(1)
    for seed in range(first, first + 20):
        try:
            torch_programs.run(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
