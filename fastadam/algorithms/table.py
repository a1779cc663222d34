"""The table of algorithms: what everything that treats them alike derives from."""

from __future__ import annotations

from fastadam.algorithms.adam import ADAM
from fastadam.algorithms.algorithm import Algorithm

__all__ = ["ALGORITHMS", "CONVERTED", "FLAGS", "STATE"]

ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in (ADAM,)}

_streams = [stream for algorithm in ALGORITHMS.values() for stream in algorithm.streams]

# The names of all streams, in the order in which steps make them.
STATE = tuple(dict.fromkeys(stream.name for stream in _streams))

# The hyperparameters that say which of a family an optimizer is.
FLAGS = tuple(dict.fromkeys(flag for each in ALGORITHMS.values() for flag in each.flags))

# Streams that may begin with the numbers of another.
CONVERTED = tuple(stream for stream in _streams if stream.made_of is not None)
