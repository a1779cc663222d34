"""The derivative of an L1 penalty as a hook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastadam.kernels.ops import ADD_SIGN, Op
from fastadam.optimizer_hooks._gradient import ChangesGradients, change, gradients_of, number
from fastadam.update.overrides import folds

__all__ = ["Lasso"]


@folds
class Lasso(ChangesGradients):
    r"""Hook that adds the derivative of an L1 penalty to the gradients.

    .. math:: g \leftarrow g + \text{rate} \cdot \operatorname{sign}(p)

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
        'Lasso'.
    call_for_each_param : bool
        True: the hook may be added to an optimizer or to the rule of one parameter.
    timing : str
        'pre'.

    References
    ----------
    Tibshirani, "Regression Shrinkage and Selection via the Lasso", Journal of the Royal
    Statistical Society B 58 (1996), doi:10.1111/j.2517-6161.1996.tb02080.x.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.Lasso(1e-4))
    """

    name = "Lasso"

    def __init__(self, rate: float) -> None:
        number(self, rate=rate)
        self.rate = rate

    def ops(self) -> list[Op]:
        """Return what an update does to every gradient on its way, in the place of a call."""
        # g += rate * sign(p)
        return [Op(ADD_SIGN, self.rate, 1.0)]

    def call_for_all(self, params: Sequence[Any]) -> None:
        """Change the gradients of many parameters in one call; updates do it so."""
        found = gradients_of(params)
        # g += rate * sign(p)
        numbers = [(self.rate, 1.0)] * len(found)
        change(ADD_SIGN, found, numbers, lambda p, g, a, _: g + a * np.sign(p))
