"""Every kernel that fastadam launches, with its template arguments."""

from __future__ import annotations

from fastadam.kernels.gpu import engine

__all__ = ["ALL_KERNELS", "PAIRS", "VARIANTS", "types_of"]

FLOATS = ("float", "float16", "bfloat16")
# What is computed in, how parameters are stored, how gradients are.
PAIRS = [("float", p, g) for p in FLOATS for g in FLOATS] + [("double", "double", "double")]
# AMSGRAD and ADABOUND.
VARIANTS = [(a, b) for a in ("false", "true") for b in ("false", "true")]
ALL_KERNELS = [
    *(engine.kernel_name("adam", (*pair, *variant)) for pair in PAIRS for variant in VARIANTS),
    *(engine.kernel_name("squares", (pair[0], pair[2])) for pair in [*PAIRS[:3], PAIRS[-1]]),
    *(engine.kernel_name("change", pair) for pair in PAIRS),
    *("add_chunks", "clip_rate", "lars_rates"),
]


def types_of(name: str) -> tuple[str, ...]:
    """Return the template arguments in a kernel's name."""
    return tuple(filter(None, name.partition("<")[2].rstrip(">").split(", ")))
