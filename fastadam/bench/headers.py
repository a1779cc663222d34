"""Names, shapes and dtypes of the arrays in a file, read from its headers alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fastadam.bench.cases import Case, Tensor
from fastadam.cli.extras import load
from fastadam.files import npz
from fastadam.files.entries import RAW_BFLOAT16
from fastadam.files.errors import CheckpointError
from fastadam.kernels.dtypes import computing_dtype

__all__ = ["UnreadableModel", "read_model"]

# What safetensors calls the types that are stepped.
_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class UnreadableModel(Exception):
    """A file is not a model whose shapes can be read; the message says what is wrong with it."""


def read_model(path: Path) -> tuple[Case, list[str]]:
    """Read what a model's file says about its arrays; the arrays themselves are not read.

    Parameters
    ----------
    path : pathlib.Path
        Of an ``.npz`` or ``.safetensors`` file; which of the two is decided by the name.

    Returns
    -------
    case : Case
        The floating arrays, under the file's name, each with its own dtype.
    left_out : list of str
        The others, each with its dtype.

    Raises
    ------
    UnreadableModel
        If there is no such file, if it is damaged or of another kind, or if no array in it can be
        stepped.
    MissingExtra
        If safetensors is needed and not installed.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise UnreadableModel(f"{path}: the name must end in .npz or .safetensors")
    if not path.is_file():
        raise UnreadableModel(f"{path}: there is no such file")
    try:
        found = list(_npz(path) if path.suffix == ".npz" else _safetensors(path))
    except OSError as error:
        raise UnreadableModel(f"{path}: cannot be read: {error.strerror or error}") from error
    tensors, left_out = [], []
    for name, shape, dtype, spelt in found:
        tensor = Tensor(name, shape, dtype)
        if dtype and tensor.size:
            tensors.append(tensor)
        else:
            left_out.append(f"{name} ({spelt if tensor.size else 'empty'})")
    if not found:
        raise UnreadableModel(f"{path}: there are no arrays in it")
    if not tensors:
        raise UnreadableModel(
            f"{path}: none of its arrays has elements of float16, bfloat16, float32 or float64, "
            f"which is what is stepped; it has {', '.join(left_out)}"
        )
    return Case(path.name, tuple(tensors)), left_out


# Name, shape, dtype if it can be stepped, and the dtype as the file spells it.
_Found = tuple[str, tuple[int, ...], str | None, str]


def _npz(path: Path) -> Iterator[_Found]:
    """Read the headers of the arrays in an npz file."""
    try:
        with npz.opened(path) as reader:
            headers = [(key, reader.header(key)) for key in list(reader.keys())]
    except CheckpointError as error:
        raise UnreadableModel(f"{path}: not an .npz file that can be read: {error}") from error
    for key, header in headers:
        if header is not None:
            shape, _, dtype = header
            if any(n < 0 for n in shape):
                raise UnreadableModel(f"{path}: {key!r} has the impossible shape {shape}")
            stepped = None
            if dtype == RAW_BFLOAT16:
                stepped = "bfloat16"
            elif computing_dtype(dtype) is not None:
                stepped = dtype.newbyteorder("=").name
            yield key, shape, stepped, str(dtype)


def _safetensors(path: Path) -> Iterator[_Found]:
    """Read the header with the library's own reader, which checks it."""
    library = load("bench", "safetensors")
    try:
        with library.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                view = file.get_slice(name)
                spelt = view.get_dtype()
                yield name, tuple(view.get_shape()), _SAFETENSORS.get(spelt), spelt
    except library.SafetensorError as error:
        reason = re.sub(r"^Error while deserializing header:\s*", "", str(error))
        raise UnreadableModel(
            f"{path}: not a safetensors file that can be read: {reason}"
        ) from error
