"""Layer-wise adaptive rate scaling as a hook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastadam.kernels.changing import ADD
from fastadam.kernels.gpu.sums import lars_rates
from fastadam.kernels.sums import global_norm, gpu_sums, sum_of_squares
from fastadam.optimizer_hooks._gradient import ChangesGradients, change, check_numbers, gradients_of

__all__ = ["GradientLARS"]


class GradientLARS(ChangesGradients):
    r"""Hook that scales each gradient by the size of its parameter (LARS).

    .. math::
        r &= \begin{cases}
            \dfrac{\|p\|}{\varepsilon + \|g\| + \text{weight\_decay} \cdot \|p\|}
            & \text{if } \|p\| > \text{threshold} \\
            1 & \text{otherwise}
        \end{cases} \\
        g &\leftarrow r \, (g + \text{weight\_decay} \cdot p)

    The norms are summed in float64. A gradient with infinite elements gets the rate 0, by which
    these become NaN.

    Parameters
    ----------
    threshold : float
        Parameters whose norm is not above it are not scaled; not below 0.
    weight_decay : float
        The coefficient of an L2 penalty that is added to the gradient; not below 0.
    eps : float
        Keeps the quotient finite; not below 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or below 0.

    References
    ----------
    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks",
    arXiv:1708.03888.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.ones(2)})
    >>> opt.add_hook(fastadam.optimizer_hooks.GradientLARS(weight_decay=1e-4))
    """

    name = "GradientLARS"

    def __init__(
        self, threshold: float = 1e-2, weight_decay: float = 0.0, eps: float = 1e-9
    ) -> None:
        check_numbers(self, 0, threshold=threshold, weight_decay=weight_decay, eps=eps)
        self.threshold = threshold
        self.weight_decay = weight_decay
        self.eps = eps

    def call_for_all(self, params: Sequence[Any]) -> None:
        """Change the gradients of many parameters in one call; updates do it so."""
        found = gradients_of(params)
        numbers = [(self.weight_decay, 1.0)] * len(found)
        sums = gpu_sums([gradient.p for gradient in found]), gpu_sums([g for _, g in found])
        if sums[0] is not None and sums[1] is not None:
            # the same rates as below, for which nobody waits
            rates = lars_rates(sums[0], sums[1], self.threshold, self.weight_decay, self.eps)
            change(ADD, found, numbers, rates)
            return
        p_squares = sum_of_squares([gradient.p for gradient in found])
        g_squares = sum_of_squares([gradient.g for gradient in found])
        for i, ((p, g), p_square, g_square) in enumerate(
            zip(found, p_squares, g_squares, strict=True)
        ):
            p_norm, g_norm = global_norm([p], [p_square]), global_norm([g], [g_square])
            # r = |p| / (eps + |g| + weight_decay * |p|)
            size = self.eps + g_norm + self.weight_decay * p_norm
            # where all three are 0, so is the gradient, and any rate will do
            rate = p_norm / size if p_norm > self.threshold and size != 0 else 1.0
            numbers[i] = self.weight_decay, rate
        # an infinite gradient has the rate 0, and becomes NaN without a word: see on_nonfinite
        with np.errstate(invalid="ignore"):
            # g = r * (g + weight_decay * p)
            change(ADD, found, numbers)
