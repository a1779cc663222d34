"""What a process grows by in steps of PyTorch's tensors, as JSON; run in a process of its own.

Usage: python torch_memory.py
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fastadam.torch

PROCESS = Path("/proc/self")

# Of one tensor: a temporary array as large as it is 8 times what is allowed.
ELEMENTS = 2**21

LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.view(1024, -1).t(),
    "channels_last": lambda x: x.view(64, 32, 32, 32).to(memory_format=torch.channels_last),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "amsgrad": {"amsgrad": True, "maximize": True},
    "clipped": {"max_grad_norm": 0.5, "max_grad_value": 0.1},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}


def resident(key: str) -> int:
    """Bytes of this process that are in memory: VmRSS now, VmHWM at most."""
    found = re.search(rf"^{key}:\s*(\d+)", (PROCESS / "status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


def map_large_blocks() -> None:
    """Have the system give, and get back, each large block by itself: what was freed is gone."""
    mmap_threshold = -3
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**18)


def grown(work: Callable[[], object]) -> int:
    """Bytes by which the process is larger at a time during some work, which was done before."""
    gc.collect()
    # what was freed, so that what is taken from there shows
    ctypes.CDLL(None).malloc_trim(0)
    # 5 sets the most to what is now
    (PROCESS / "clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return max(resident("VmHWM") - before, 0)


def step(library: Any, layout: str, dtype: torch.dtype, options: dict[str, Any]) -> int:
    """What a step of one tensor takes."""
    param = torch.nn.Parameter(LAYOUTS[layout](torch.randn(ELEMENTS, dtype=dtype)))
    param.grad = torch.randn_like(param)
    assert param.grad.stride() == param.stride()
    opt = library.AdamW([param], lr=1e-3, **options)
    for _ in range(2):
        opt.step()
    return grown(opt.step)


def pass_and_step(bucket_bytes: int | None) -> int:
    """What a backward pass and a step take of 16 layers of 4 MB each."""
    layers = [torch.nn.Linear(1024, 1024, bias=False) for _ in range(16)]
    model = torch.nn.Sequential(*layers)
    opt = fastadam.torch.AdamW(model.parameters(), lr=1e-6)
    if bucket_bytes is not None:
        fastadam.torch.step_in_backward(opt, bucket_bytes=bucket_bytes)

    def train() -> None:
        model(torch.ones(1, 1024)).sum().backward()
        opt.step()
        opt.zero_grad()

    for _ in range(2):
        train()
    return grown(train)


def main() -> None:
    map_large_blocks()
    torch.set_num_threads(2)
    found: dict[str, int] = {
        f"{layout}, {dtype}, {name}": step(fastadam.torch, layout, DTYPES[dtype], options)
        for layout in LAYOUTS
        for dtype in DTYPES
        for name, options in OPTIONS.items()
    }
    seen = step(torch.optim, "contiguous", torch.float32, {"foreach": True})
    passes = {str(bucket): pass_and_step(bucket) for bucket in (None, 0, 2**23)}
    print(json.dumps({"steps": found, "foreach": seen, "passes": passes}))


if __name__ == "__main__":
    main()
