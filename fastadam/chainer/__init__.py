"""The optimizers as subclasses of Chainer's, too, for programs that ask for Chainer's classes.

`Adam`, `AdamW`, `AMSGrad`, `AdaBound` and `AMSBound` are those of :mod:`fastadam.optimizers` in
everything that they do, and ``isinstance(opt, chainer.optimizers.Adam)`` is true. They are made
when they are first asked for, as Chainer is imported then.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastadam import optimizers

if TYPE_CHECKING:
    from fastadam.optimizers import AdaBound, Adam, AdamW, AMSBound, AMSGrad

__all__ = ["AMSBound", "AMSGrad", "AdaBound", "Adam", "AdamW"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _make(name)
    return made


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("_")), *__all__})


def _make(name: str) -> type[Any]:
    """Return an optimizer's class, whose every method is ours, as ours come first."""
    theirs = getattr(_chainers_optimizers(), name)
    ours: Any = getattr(optimizers, name)
    # AdamW is an Adam here, as in both libraries, and so are the others
    bases = (ours,) if name == "Adam" else (ours, globals().get("Adam") or __getattr__("Adam"))
    doc = f":class:`fastadam.{name}` as a subclass of ``chainer.optimizers.{name}``, too."
    own = {"__module__": __name__, "__qualname__": name, "__doc__": doc}
    return type(name, (*bases, theirs), own)


def _chainers_optimizers() -> Any:
    """Import Chainer, or say what to install."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports modules that are out of date
            return importlib.import_module("chainer").optimizers
    except Exception as error:
        # beside a new NumPy it fails in many ways
        raise ImportError(
            "fastadam.chainer needs Chainer, which cannot be imported beside NumPy "
            f"{np.__version__} ({type(error).__name__}: {error}): pip install "
            '"setuptools<81" "chainer==7.8.1" "numpy==1.26.4". Without it there are the same '
            "optimizers in fastadam.optimizers"
        ) from error
