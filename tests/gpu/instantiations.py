"""Every kernel that fastadam launches, with its template arguments."""

from __future__ import annotations

from fastadam.kernels.gpu import engine

__all__ = [
    "ALL_KERNELS",
    "PAIRS",
    "PLAIN_KERNELS",
    "PREPARES",
    "VARIANTS",
    "adam_name",
    "types_of",
]

FLOATS = ("float", "float16", "bfloat16")
# What is computed in, how parameters are stored, how gradients are.
PAIRS = [("float", p, g) for p in FLOATS for g in FLOATS] + [("double", "double", "double")]
# AMSGRAD and ADABOUND.
VARIANTS = [(a, b) for a in ("false", "true") for b in ("false", "true")]
# What is done to gradients first; and whether there are masters, which are float32 alone.
PREPARES = ("AS_IT_IS", "PREPARED", "WRITTEN")


def adam_name(
    types: tuple[str, ...],
    variant: tuple[str, str],
    prepare: str = PREPARES[0],
    masters: bool = False,
) -> str:
    """Return the name of a kernel that steps."""
    return engine.kernel_name("adam", (*types, *variant, prepare, engine.c_flag(masters)))


ADAMS = [
    adam_name(pair, variant, prepare, masters)
    for pair in PAIRS
    for variant in VARIANTS
    for prepare in PREPARES
    for masters in ((False, True) if pair[1] == "float" else (False,))
]
# SCALED and WRITTEN.
DIVIDED = [("false", "false"), ("true", "false"), ("true", "true")]
ALL_KERNELS = [
    *ADAMS,
    *(
        engine.kernel_name("squares", (pair[0], pair[2], *divided))
        for pair in [*PAIRS[:3], PAIRS[-1]]
        for divided in DIVIDED
    ),
    *(engine.kernel_name("change", pair) for pair in PAIRS),
    *("add_chunks", "clip_rate", "bound_rate", "lars_rates"),
]
# Those that do nothing to gradients, for parameters that are nobody's masters.
PLAIN_KERNELS = [
    name for name in ALL_KERNELS if name not in ADAMS or name.endswith(", AS_IT_IS, false>")
]


def types_of(name: str) -> tuple[str, ...]:
    """Return the template arguments in a kernel's name."""
    return tuple(filter(None, name.partition("<")[2].rstrip(">").split(", ")))
