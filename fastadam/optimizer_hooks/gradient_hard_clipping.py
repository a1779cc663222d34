"""Clipping of gradients, element by element, as a hook."""

from __future__ import annotations

from fastadam.kernels.ops import CLIP, Op
from fastadam.optimizer_hooks._gradient import ChangesGradients, apply_ops, check_numbers
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

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.GradientHardClipping(-1, 1))
    """

    name = "GradientHardClipping"

    def __init__(self, lower_bound: float, upper_bound: float) -> None:
        check_numbers(self, lower_bound=lower_bound, upper_bound=upper_bound)
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

    call_for_all = apply_ops
