"""Weight decay as a hook."""

from __future__ import annotations

from fastadam.kernels.ops import ADD, Op
from fastadam.optimizer_hooks._gradient import ChangesGradients, apply_ops, check_numbers
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

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.WeightDecay(1e-4))
    """

    name = "WeightDecay"

    def __init__(self, rate: float) -> None:
        check_numbers(self, rate=rate)
        self.rate = rate

    def ops(self) -> list[Op]:
        """Return what an update does to every gradient on its way, in the place of a call."""
        # g += rate * p
        return [Op(ADD, self.rate, 1.0)]

    call_for_all = apply_ops
