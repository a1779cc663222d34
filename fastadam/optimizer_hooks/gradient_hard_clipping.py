"""Clipping of gradients, element by element, as a hook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastadam.kernels.ops import CLIP, Op
from fastadam.optimizer_hooks._gradient import ChangesGradients, change, gradients_of, number
from fastadam.update.overrides import folds

__all__ = ["GradientHardClipping"]


@folds
class GradientHardClipping(ChangesGradients):
    r"""Hook that keeps every element of the gradients between two bounds.

    .. math:: g \leftarrow \min(\max(g, \text{lower\_bound}), \text{upper\_bound})

    NaN stays NaN.

    Parameters
    ----------
    lower_bound, upper_bound : float
        The bounds; infinite ones do nothing.

    Raises
    ------
    TypeError, ValueError
        If a bound is no number, or NaN; if the lower one is above the upper one.

    Attributes
    ----------
    lower_bound, upper_bound : float
        The bounds; may be changed at any time.
    name : str
        'GradientHardClipping'.
    call_for_each_param : bool
        True: the hook may be added to an optimizer or to the rule of one parameter.
    timing : str
        'pre'.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.GradientHardClipping(-1, 1))
    """

    name = "GradientHardClipping"

    def __init__(self, lower_bound: float, upper_bound: float) -> None:
        number(self, lower_bound=lower_bound, upper_bound=upper_bound)
        if not lower_bound <= upper_bound:
            raise ValueError(
                f"GradientHardClipping: lower_bound {lower_bound!r} must not be above "
                f"upper_bound {upper_bound!r}"
            )
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound

    def ops(self) -> list[Op]:
        """Return what an update does to every gradient on its way, in the place of a call."""
        # g = clip(g, lower_bound, upper_bound)
        return [Op(CLIP, self.lower_bound, self.upper_bound)]

    def call_for_all(self, params: Sequence[Any]) -> None:
        """Change the gradients of many parameters in one call; updates do it so."""
        found = gradients_of(params)
        # g = clip(g, lower_bound, upper_bound)
        numbers = [(self.lower_bound, self.upper_bound)] * len(found)
        change(CLIP, found, numbers, lambda _, g, a, b: np.clip(g, a, b))
