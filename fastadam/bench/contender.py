"""What a contender of the benchmark does, and how one is checked before it is timed."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fastadam.bench import arrays, settings
from fastadam.bench.arrays import Array
from fastadam.bench.cases import Case, Tensor
from fastadam.bench.settings import Variant
from fastadam.bench.timing import Subject
from fastadam.optimizers import Adam

__all__ = ["Contender", "Differs", "NotComparable", "Unavailable", "check", "imported"]

# How far parameters may be apart after a few steps, relative to the way they have gone. The half
# types' own state, which some keep, and their rounding after each operation is most of it.
_TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "float16": 0.1, "bfloat16": 0.25}
_CHECKED_STEPS = 5
_CHECKED = Case("check", (Tensor("a", (37, 11)), Tensor("b", (13,))))


class Unavailable(Exception):
    """A contender cannot be had here; the message says why, and how to get it.

    Attributes
    ----------
    install : str or None
        The line that installs it, if that is all that is missing.
    """

    def __init__(self, why: str, install: str | None = None) -> None:
        super().__init__(why)
        self.install = install


class NotComparable(Exception):
    """A contender has no such step: a variant or a dtype that it lacks, or another result."""


class Differs(NotComparable):
    """Its step has another result."""


# What pip installs, by the module that is missing.
_PACKAGES = {
    "torch": "torch==2.13.0",
    "optax": "optax jax",
    "jax": "optax jax",
    "deepspeed": "deepspeed ninja",
    "apex": "--no-build-isolation git+https://github.com/NVIDIA/apex (with APEX_CPP_EXT=1 and "
    "APEX_CUDA_EXT=1)",
    "chainer": '"setuptools<81" "chainer==7.8.1" "numpy==1.26.4" (an environment of its own)',
}


def imported(module: str) -> Any:
    """Import a library without its warnings about what is old in it, or say how to get it."""
    library = module.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # or one that it needs
        packages = _PACKAGES.get(error.name or library, _PACKAGES[library])
        install = f"pip install {packages}"
        raise Unavailable(f"not installed: {install}", install) from None
    except Exception as error:
        # an old Chainer beside a new NumPy fails in many ways
        raise Unavailable(f"cannot be imported: {type(error).__name__}: {error}") from error


class Contender(ABC):
    """An optimizer with arrays of its own, ready for steps.

    Parameters
    ----------
    variant : Variant
        Which of the family.
    params : list of numpy.ndarray
        Where to start; they become the contender's, which may step them in place.

    Raises
    ------
    Unavailable, NotComparable
        If it cannot be had, or lacks the variant or the dtype.
    """

    # The name in tables, whose eps and weight decay it has, and the library that is neither
    # fastadam nor NumPy.
    name: ClassVar[str]
    # Whether gradients may be of another dtype than their parameters.
    mixes: ClassVar[bool] = False
    modes: ClassVar[str] = "pytorch"
    library: ClassVar[str | None] = None

    @abstractmethod
    def __init__(self, variant: Variant, params: list[Array]) -> None:
        """Set up."""

    @abstractmethod
    def give(self, grads: list[Array]) -> None:
        """Take gradients for the next steps, in the form in which the library has them."""

    def give_anew(self, grads: list[Array]) -> None:
        """Take copies of gradients, in new memory."""
        self.give([grad.copy() for grad in grads])

    @abstractmethod
    def step(self) -> None:
        """Make one step; this is what is timed."""

    @abstractmethod
    def values(self) -> list[Array]:
        """Return the parameters."""

    def parts(self) -> list[Subject]:
        """Return what is timed beside the whole step."""
        return []

    def bytes_moved(self) -> int | None:
        """Return what a step that has been made reads and writes; None for what fastadam's does."""
        return None

    @classmethod
    def set_threads(cls, n: int) -> None:
        """Use so many threads; fastadam's are set already, and who has always one does nothing.

        Raises
        ------
        NotComparable
            If that cannot be done in a process that runs.
        """
        return None

    @classmethod
    def version(cls) -> str | None:
        """Return the name and the version of the library, if it is another."""
        return f"{cls.library} {imported(cls.library).__version__}" if cls.library else None


def check(
    kind: type[Contender],
    variant: Variant,
    dtype: str,
    prepare: Callable[[Adam], None] | None = None,
) -> float:
    """Make a few steps on small arrays, and compare them with fastadam's in the same modes.

    Fastadam's optimizer may be prepared with what the contender has beyond the step.

    Returns
    -------
    float
        The largest difference of a parameter, relative to the largest way that one has gone.

    Raises
    ------
    Differs
        If the difference is more than rounding explains: such a contender is not timed.
    """
    start = arrays.parameters(_CHECKED, dtype)
    expected = [p.copy() for p in start]
    ours = settings.optimizer(variant, kind.modes).setup(expected)
    tolerance = _TOLERANCES[dtype]
    if prepare is not None:
        prepare(ours)
        # PyTorch adds 1e-6 to the norm by which it clips
        tolerance = max(tolerance, 1e-5)
    theirs = kind(variant, [p.copy() for p in start])
    for step in range(1, _CHECKED_STEPS + 1):
        # larger ones at every step, so that whoever clips them does something else
        grads = [(g * step).astype(g.dtype) for g in arrays.gradients(_CHECKED, dtype, step)]
        theirs.give([g.copy() for g in grads])
        theirs.step()
        ours.apply_gradients(grads)
    difference = _farthest(expected, theirs.values()) / _farthest(expected, start)
    # also where it is NaN
    if not difference <= tolerance:
        raise Differs(
            f"after {_CHECKED_STEPS} steps its parameters are {difference:.2g} of their way from "
            f"fastadam's (at most {tolerance:g} is rounding)"
        )
    return difference


def _farthest(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Return the largest difference of an element, in float64."""
    pairs = zip(first, second, strict=True)
    return float(np.max([np.max(np.abs(a.astype(float) - b.astype(float))) for a, b in pairs]))
