"""How this machine's C library rounds powers of betas, of which no digest tells.

``beta**t`` is made by the C library's ``pow``, as in Chainer. Libraries round some powers to the
second nearest float64, so that float64 results differ between machines from such a step on.
"""

from __future__ import annotations

import math

__all__ = ["BETAS", "N_STEPS", "not_nearest"]

BETAS = (0.9, 0.95, 0.99, 0.999, 0.9999)
N_STEPS = 1000


def not_nearest() -> list[tuple[float, int]]:
    """Return each beta and step whose power is not the nearest float64.

    Examples
    --------
    >>> from fastadam.cli import powers
    >>> len(powers.not_nearest()) < len(powers.BETAS) * powers.N_STEPS
    True
    """
    found = []
    for beta in BETAS:
        numerator, denominator = beta.as_integer_ratio()
        above = below = 1
        for t in range(1, N_STEPS + 1):
            above *= numerator
            below *= denominator
            # the quotient of integers is the float64 that is nearest
            if math.pow(beta, t) != above / below:
                found.append((beta, t))
    return found
