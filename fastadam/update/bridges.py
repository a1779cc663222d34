"""Bridges to other libraries, which are imported when an object of their library is met first."""

from __future__ import annotations

from collections.abc import Callable

from fastadam.update.overrides import libraries_of

__all__ = ["add_bridge", "bridged"]

# What imports the module that knows the objects of a library, by the library's name.
_BRIDGES: dict[str, Callable[[], object]] = {}


def add_bridge(library: str, imports: Callable[[], object]) -> None:
    """Tell what is to be called when an object of a library is met for the first time.

    Parameters
    ----------
    library : str
        The name under which the library is imported.
    imports : callable
        It imports a module of this package, which registers what it does with such objects where
        this is asked for.
    """
    _BRIDGES[library] = imports


def bridged(obj: object) -> bool:
    """Tell whether a bridge has been imported for an object, and had not been before.

    Parameters
    ----------
    obj : object
        The object; its class, or a base of it, may come from a library that there is a bridge to.
    """
    for library in libraries_of(type(obj)) & _BRIDGES.keys():
        _BRIDGES[library]()
        # one that cannot be imported is tried again
        _BRIDGES.pop(library, None)
        return True
    return False
