"""Weight decay as a hook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastadam.kernels.ops import ADD, Op
from fastadam.optimizer_hooks._gradient import ChangesGradients, change, gradients_of, number
from fastadam.update.overrides import folds

__all__ = ["WeightDecay"]


@folds
class WeightDecay(ChangesGradients):
    r"""Hook that adds the derivative of an L2 penalty to the gradients.

    .. math:: g \leftarrow g + \text{rate} \cdot p

    The gradient is changed before Adam divides it by its own size, so the penalty is not
    a decay of the weights by `rate`; that is what `weight_decay_rate` is for, see
    :class:`fastadam.AdamW`.

    Parameters
    ----------
    rate : float
        The coefficient. One below 0 is taken: it makes weights grow.

    Raises
    ------
    TypeError, ValueError
        If it is no number, or NaN.

    Attributes
    ----------
    rate : float
        The coefficient; may be changed at any time.
    name : str
        'WeightDecay'.
    call_for_each_param : bool
        True: the hook may be added to an optimizer or to the rule of one parameter.
    timing : str
        'pre'.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.WeightDecay(1e-4))
    """

    name = "WeightDecay"

    def __init__(self, rate: float) -> None:
        number(self, rate=rate)
        self.rate = rate

    def ops(self) -> list[Op]:
        """Return what an update does to every gradient on its way, in the place of a call."""
        # g += rate * p
        return [Op(ADD, self.rate, 1.0)]

    def call_for_all(self, params: Sequence[Any]) -> None:
        """Change the gradients of many parameters in one call; updates do it so."""
        found = gradients_of(params)
        # g += rate * p
        change(ADD, found, [(self.rate, 1.0)] * len(found), lambda p, g, a, _: g + a * p)
