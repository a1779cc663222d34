"""What an update did, for whoever wants to look."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UpdateReport"]


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What the last update did; an optimizer's ``last_update``.

    It is there when 'post' hooks run, and after an update that raised when some parameters had
    been updated already.

    Parameters
    ----------
    t : int
        The number of the update.
    skipped : bool
        Whether no parameter was touched, because a gradient was not finite.
    nonfinite : tuple of str or None
        Paths of the parameters whose gradient holds NaN or infinity. None if nobody asked: see
        `grad_norm`.
    grad_norm : float or None
        The 2-norm of all gradients together, of the parameters that are to be updated: true ones
        (not multiplied by a loss scale), before the hooks. None unless the gradients were looked
        at: with a dynamic loss scale, with an ``on_nonfinite`` other than 'propagate', with
        ``monitor = True``, or by :class:`~fastadam.optimizer_hooks.GradientClipping` as the first
        'pre' hook.
    loss_scale : float or None
        The optimizer's loss scale during this update.
    applied : tuple of str
        Paths of the parameters that have been updated: all that are enabled, unless the update
        was skipped or something raised on the way.

    Examples
    --------
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam().setup({'w': np.zeros(2)})
    >>> opt.monitor = True
    >>> opt.apply_gradients({'w': np.array([3.0, 4.0])})
    >>> opt.last_update
    UpdateReport(t=1, skipped=False, nonfinite=(), grad_norm=5.0, loss_scale=None, applied=('w',))
    """

    t: int
    skipped: bool
    nonfinite: tuple[str, ...] | None
    grad_norm: float | None
    loss_scale: float | None
    applied: tuple[str, ...]
