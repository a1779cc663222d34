"""The numbers: formulas, loops and dispatch; arrays and scalars only, no objects."""

import os

try:
    from fastadam.kernels.cpu import _cpu_features, _layout, _openmp, _step, _tensors
except ImportError as error:
    raise ImportError(
        f"fastadam's compiled kernels are missing from {os.path.dirname(__file__)} ({error}). If "
        "that is a source tree, build it with 'pip install -e .', or start Python in another "
        "folder to use the installed package."
    ) from error

__all__ = ["_cpu_features", "_layout", "_openmp", "_step", "_tensors"]
