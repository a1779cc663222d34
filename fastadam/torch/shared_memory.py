"""Parameters that share memory: what a load writes into one is written into the other, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fastadam.kernels.memory import extent
from fastadam.torch.tensors import Array

__all__ = ["refuse_disagreement"]


def refuse_disagreement(written: Mapping[str, Array], values: Mapping[str, Array]) -> None:
    """Refuse values that differ where the arrays that they go to share memory.

    Parameters
    ----------
    written : mapping of str to array
        Arrays, by the names that they have in messages; nothing is written yet.
    values : mapping of str to array
        What will be copied into each of them, in the same order.

    Raises
    ------
    ValueError
        With two names, if one of the two would not have its values.
    """
    for names in _neighbours(written):
        found = _first_lost(names, written, values)
        if found is None:
            continue
        # which of those that come later it is
        later = names[names.index(found) + 1 :]
        other = next(
            name for name in later if _first_lost([found, name], written, values) is not None
        )
        raise ValueError(
            f"parameters {found!r} and {other!r} share memory here, and their values in the file "
            "differ; `ignore_names` leaves one of the two"
        )


def _neighbours(written: Mapping[str, Array]) -> Iterator[list[str]]:
    """Yield the names of arrays that lie between the same addresses, in their order."""
    order = list(written)
    spans = sorted((*extent(array), name) for name, array in written.items() if array.size)
    names: list[str] = []
    last = 0
    for start, end, name in [*spans, (2**64, 0, "")]:
        if names and start >= last:
            if len(names) > 1:
                yield sorted(names, key=order.index)
            names = []
        names.append(name)
        last = max(last, end)


def _first_lost(
    names: Iterable[str], written: Mapping[str, Array], values: Mapping[str, Array]
) -> str | None:
    """Write values into a copy of what the arrays share; return the first that is lost in it."""
    arrays = {name: written[name] for name in names}
    spans = {name: extent(array) for name, array in arrays.items()}
    start = min(first for first, _ in spans.values())
    memory = np.zeros(max(end for _, end in spans.values()) - start, np.uint8)
    copies = {
        name: np.ndarray(array.shape, array.dtype, memory, spans[name][0] - start, array.strides)
        for name, array in arrays.items()
    }
    bits = {}
    with np.errstate(all="ignore"):
        for name, copy in copies.items():
            copy[...] = values[name]
            bits[name] = copy.tobytes()
    return next((name for name, copy in copies.items() if copy.tobytes() != bits[name]), None)
