"""What an algorithm is, as data: its arrays, hyperparameters, scalars, and what they may be."""

import os

# What to do where a compiled module is missing.
BUILD = (
    "If that is a source tree, build it with 'pip install -e .', or start Python in another folder "
    "to use the installed package."
)

try:
    from fastadam.algorithms._coefficients import coefficients_at
except ImportError as error:
    raise ImportError(
        f"fastadam's compiled modules are missing from {os.path.dirname(__file__)} ({error}). "
        f"{BUILD}"
    ) from error

__all__ = ["BUILD", "coefficients_at"]
