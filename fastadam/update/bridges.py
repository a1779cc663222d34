"""Bridges to other libraries, which are imported when an object of their library is met first."""

from __future__ import annotations

import importlib
import sys

from fastadam.update.overrides import libraries_of

__all__ = ["add_bridge", "bridged"]

# Modules of this package by the name of the library whose objects they know.
_BRIDGES: dict[str, str] = {}


def add_bridge(library: str, module: str) -> None:
    """Tell which module is to be imported when an object of a library is met.

    It registers what it does with these where this is asked for.

    Parameters
    ----------
    library : str
        The name under which the library is imported.
    module : str
        The full name of the module.
    """
    _BRIDGES[library] = module


def bridged(obj: object) -> bool:
    """Tell whether a bridge has been imported for an object, which was not there before.

    Parameters
    ----------
    obj : object
        The object; its class, or a base of it, may come from a library that there is a bridge to.
    """
    for library in libraries_of(type(obj)):
        module = _BRIDGES.get(library)
        if module is not None and module not in sys.modules:
            importlib.import_module(module)
            return True
    return False
