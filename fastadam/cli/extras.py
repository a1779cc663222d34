"""Modules that only an extra brings."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["MissingExtra", "load"]


# What each extra of pyproject.toml brings. The package itself is on no index, so that its extras
# can be named only by who installs it from its folder.
_PACKAGES = {
    "demo": ("scikit-learn", "matplotlib", "tqdm", "autograd"),
    "bench": ("matplotlib", "ml_dtypes", "safetensors", "threadpoolctl"),
    "bfloat16": ("ml_dtypes",),
}


class MissingExtra(Exception):
    """A module of an extra is not installed; the message ends with the line that installs it.

    Attributes
    ----------
    install : str
        The line.
    """

    def __init__(self, extra: str, module: str) -> None:
        self.install = f"pip install {' '.join(_PACKAGES[extra])}"
        super().__init__(f"{module.partition('.')[0]} is not installed: {self.install}")


def load(extra: str, module: str) -> Any:
    """Import a module that an extra brings.

    Raises
    ------
    MissingExtra
        If the module, or one that it needs, is not installed. What else goes wrong in an import
        is not hidden.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, error.name or module) from error
