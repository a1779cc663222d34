"""Modules that only an extra brings."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["MissingExtra", "load"]


class MissingExtra(Exception):
    """An extra is not installed; the message is the line that installs it.

    Parameters
    ----------
    extra : str
        The name of the extra.
    """

    def __init__(self, extra: str) -> None:
        super().__init__(f'pip install "fastadam[{extra}]"')


def load(extra: str, module: str) -> Any:
    """Import a module that an extra brings.

    Parameters
    ----------
    extra : str
        The name of the extra.
    module : str
        The full name of the module.

    Returns
    -------
    module
        The module itself.

    Raises
    ------
    MissingExtra
        If the module, or one that it needs, is not installed. What else goes wrong in an import
        is not hidden.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra) from error
