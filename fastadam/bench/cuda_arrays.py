"""Memory of a GPU that is filled as the arrays of steps are: moving zeros takes less power."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastadam.bench import arrays
from fastadam.bench.cases import one
from fastadam.kernels.backend import loaded_cupy

__all__ = ["repeated"]

# Elements that are made by the host; all others are copies of them.
_BLOCK = 1 << 16


def repeated(n_bytes: int) -> Any:
    """Return bytes on the GPU: float32 numbers of gradients, repeated.

    Parameters
    ----------
    n_bytes : int
        How many.

    Returns
    -------
    cupy.ndarray
        Of uint8.
    """
    cupy = loaded_cupy()
    (block,) = arrays.gradients(one(_BLOCK, "block"), "float32")
    made = cupy.empty(n_bytes, np.uint8)
    done = min(n_bytes, block.nbytes)
    made[:done].set(block.view(np.uint8)[:done])
    stream = cupy.cuda.get_current_stream()
    while done < n_bytes:
        # what is there, once more
        more = min(done, n_bytes - done)
        made[done : done + more].data.copy_from_device_async(made.data, more, stream)
        done += more
    return made
