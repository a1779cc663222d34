"""Arrays in dicts and lists, by path; gradients matched with them, and words for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.files.names import check_key
from fastadam.kernels.arrays import refuse_masked
from fastadam.kernels.backend import beside, is_array
from fastadam.kernels.dtypes import computing_dtype
from fastadam.update._tree import DEEPEST

__all__ = ["added", "advice", "check_keys", "leaves_of", "matched"]

Array = npt.NDArray[Any]

# The path of the parameter when the target is one array.
SINGLE = "param"


def advice(what: str, obj: Any) -> str:
    """Say what to give instead of something that cannot be trained in place."""
    kind = f"{type(obj).__module__}.{type(obj).__qualname__}"
    if isinstance(obj, (bool, int, float, complex, np.generic)):
        return (
            f"{what} is the number {obj!r}, which cannot be updated in place; "
            "make it an array: numpy.array(...)"
        )
    if hasattr(obj, "__jax_array__") or kind.startswith("jax"):
        return (
            f"{what} is a JAX array, which cannot be updated in place; keep the parameters as "
            "NumPy arrays, numpy.array(x), and hand these to your JAX functions"
        )
    if kind.startswith("torch."):
        where = getattr(getattr(obj, "device", None), "type", "cpu")
        memory = "x.detach().numpy()" if where == "cpu" else "cupy.from_dlpack(x.detach())"
        library = "NumPy" if where == "cpu" else "CuPy"
        return f"{what} is a {kind}; give its memory as a {library} array: {memory}"
    return (
        f"{what} must be a link, an object with params(), a NumPy array, a CuPy array, or a dict "
        f"or list of arrays, not {kind}"
    )


def leaves_of(tree: Any, path: str, above: tuple[int, ...] = ()) -> Iterator[tuple[str, Array]]:
    """Yield (path, array) for every array in a nesting of dicts and lists."""
    if is_array(tree):
        refuse_masked(f"parameter {path or SINGLE!r}", tree)
        yield path or SINGLE, tree
        return
    if id(tree) in above:
        raise ValueError(f"{path!r} in the target is a {type(tree).__name__} that contains itself")
    if len(above) == DEEPEST:
        where = f"{path[:40]}..." if len(path) > 40 else path
        raise ValueError(
            f"the target is nested deeper than {DEEPEST} dicts and lists, at {where!r}"
        )
    above = (*above, id(tree))
    if isinstance(tree, dict):
        at = repr(path) if path else "the target"
        for key, child in tree.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be str, and the key {key!r} in {at} is not")
            if not key or "/" in key:
                reason = "contains '/', which separates the parts of a path" if key else "is empty"
                raise ValueError(f"the key {key!r} in {at} {reason}; rename it")
            name = check_key(key)
            yield from leaves_of(child, f"{path}/{name}" if path else name, above)
    elif isinstance(tree, (list, tuple)):
        for i, child in enumerate(tree):
            yield from leaves_of(child, f"{path}/{i}" if path else str(i), above)
    else:
        raise TypeError(advice(f"parameter {path!r}", tree))


def matched(tree: Any, grads: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, gradient) for every array of the tree."""
    where = f"the gradients at {path!r}" if path else "the gradients"
    if is_array(tree):
        yield path or SINGLE, grads
    elif grads is None:
        for child, _ in leaves_of(tree, path):
            yield child, None
    elif isinstance(tree, dict):
        if not isinstance(grads, Mapping):
            raise ValueError(f"{where} must be a dict like the target, not {type(grads).__name__}")
        check_keys(where, tree, grads)
        for key, child in tree.items():
            name = check_key(key)
            yield from matched(child, grads[key], f"{path}/{name}" if path else name)
    else:
        if not isinstance(grads, (list, tuple)):
            raise ValueError(f"{where} must be a list like the target, not {type(grads).__name__}")
        if len(grads) != len(tree):
            raise ValueError(f"{where}: {len(tree)} expected, one per parameter, got {len(grads)}")
        for i, child in enumerate(tree):
            yield from matched(child, grads[i], f"{path}/{i}" if path else str(i))


def added(path: str, one: Any, more: Any) -> Array:
    """Add the gradients of an array that is there twice; half types in float32."""
    a, b = (each if is_array(each) else np.asarray(each) for each in (one, more))
    if a.shape != b.shape:
        raise ValueError(
            f"the gradients of the array at {path!r}, which is there twice, have the shapes "
            f"{a.shape} and {b.shape}"
        )
    with np.errstate(all="ignore"), beside(a):
        total: Array = a.astype(computing_dtype(a.dtype) or a.dtype, copy=False) + b
    return total


def check_keys(where: str, expected: Any, given: Any) -> None:
    """Refuse gradients that lack keys or have others; name all of them."""
    missing = [key for key in expected if key not in given]
    extra = sorted(str(key) for key in given if key not in expected)
    problems = [f"missing {', '.join(map(repr, missing))}"] if missing else []
    problems += [f"unknown {', '.join(map(repr, extra))}"] if extra else []
    if problems:
        raise ValueError(
            f"{where} do not fit the parameters: {'; '.join(problems)}. "
            "For a parameter without a gradient, give None"
        )
