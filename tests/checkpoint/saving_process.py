"""Saves one state after the other until it is killed; each is told before it is begun."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import fastadam


def make(n: int) -> Any:
    """An optimizer whose every number tells which state it is."""
    params = {"W": np.zeros((100, n)), "b": np.zeros(7)}
    return fastadam.Adam(alpha=0.5, eps=1.0).setup(params)


def main(path: str, n: int) -> None:
    """Update and save for ever."""
    opt = make(n)
    while True:
        for param in opt.parameters.values():
            param.array[...] = opt.t + 1
        opt.apply_gradients({"W": np.zeros((100, n)), "b": np.zeros(7)})
        print(opt.t, flush=True)
        fastadam.save(path, opt)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
