"""The derivative of an L1 penalty as a hook."""

from __future__ import annotations

from fastadam.kernels.ops import ADD_SIGN, Op
from fastadam.optimizer_hooks._gradient import ChangesGradients, apply_ops, check_numbers
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
        check_numbers(self, rate=rate)
        self.rate = rate

    def ops(self) -> list[Op]:
        """Return what an update does to every gradient on its way, in the place of a call."""
        # g += rate * sign(p)
        return [Op(ADD_SIGN, self.rate, 1.0)]

    call_for_all = apply_ops
