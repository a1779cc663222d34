"""How many threads a step may use."""

from __future__ import annotations

import operator

from fastadam.kernels.cpu import _threads

__all__ = ["get_num_threads", "set_by_hand", "set_num_threads"]

# More than any machine has, and few enough for the system to start.
_LARGEST = 4096


def set_num_threads(n: int | None) -> None:
    """Set how many threads the kernels use, in the whole process.

    The number wins over everything that chooses, even above the number of cores: whoever sets it
    means it. A forked child and ``OMP_THREAD_LIMIT`` bound it all the same, because OpenMP cannot
    start more threads there. Results do not depend on it, in any bit.

    Parameters
    ----------
    n : int or None
        At least 1; None goes back to choosing by OpenMP and the CPU quota.

    Raises
    ------
    TypeError
        If ``n`` is neither an integer nor None.
    ValueError
        If ``n`` is less than 1.

    Examples
    --------
    >>> import fastadam
    >>> fastadam.set_num_threads(3)
    >>> fastadam.get_num_threads()
    3
    >>> fastadam.set_num_threads(None)
    """
    if n is None:
        _threads.set_by_hand(None)
        return
    if isinstance(n, bool):
        raise TypeError("the number of threads n must be an integer or None, not bool")
    try:
        number = operator.index(n)
    except TypeError:
        raise TypeError(
            f"the number of threads n must be an integer or None, not {type(n).__name__}"
        ) from None
    if not 1 <= number <= _LARGEST:
        raise ValueError(
            f"the number of threads n must be from 1 to {_LARGEST}, or None to choose; got {number}"
        )
    _threads.set_by_hand(number)


def get_num_threads() -> int:
    """Return how many threads a large update would use now.

    That is 1 in a forked child, where the threads of OpenMP do not live on; the number given to
    `set_num_threads`; else the smallest of

    - what OpenMP would use, asked every time so that ``threadpoolctl`` and ``OMP_NUM_THREADS``
      hold;
    - the CPUs that this thread may run on, asked every time too;
    - the control group's CPU quota, rounded up, and read again when it is more than a second old.

    ``OMP_THREAD_LIMIT`` bounds all of them. With ``OMP_DYNAMIC``, OpenMP may start fewer threads
    than this number when the machine is busy.

    Returns
    -------
    int
        At least 1.
    """
    return _threads.number()


def set_by_hand() -> int | None:
    """Return the number given to `set_num_threads`, None if it chooses."""
    return _threads.by_hand
