"""Names, shapes and dtypes of the arrays in a file, read from its headers alone."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastadam.bench.cases import Case, Tensor
from fastadam.cli.extras import load
from fastadam.kernels.dtypes import computing_dtype

__all__ = ["UnreadableModel", "read_model"]

# What safetensors calls the types that are stepped.
_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

# NumPy has no name for bfloat16 and writes it as two raw bytes.
_RAW_BFLOAT16 = np.dtype("V2")

# A header is some hundred bytes; so much of an array's file is read.
_LONGEST_HEADER = 10_000


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
        found = _npz(path) if path.suffix == ".npz" else _safetensors(path)
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


def _npz(path: Path) -> list[_Found]:
    """Read the headers inside a zip file of .npy files."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = []
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as member:
                        shape, dtype = _npy_header(member, f"{path}: {info.filename}")
                    name = info.filename.removesuffix(".npy")
                    found.append((name, shape, _stepped(dtype), str(dtype)))
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # the latter two: compressed in an unknown way, encrypted
        raise UnreadableModel(f"{path}: not an .npz file that can be read: {error}") from error


def _npy_header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header at the beginning of an .npy file; nothing is unpickled."""
    start = io.BytesIO(member.read(_LONGEST_HEADER))
    try:
        version = np.lib.format.read_magic(start)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(start, max_header_size=_LONGEST_HEADER)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(start, max_header_size=_LONGEST_HEADER)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of its format is not known")
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise UnreadableModel(f"{where}: its header cannot be read: {reason}") from error
    shape, _, dtype = header
    if any(n < 0 for n in shape):
        raise UnreadableModel(f"{where}: its header has the impossible shape {shape}")
    return shape, dtype


def _stepped(dtype: np.dtype[Any]) -> str | None:
    """Name the dtype in which such an array is stepped, None if it is not."""
    if dtype == _RAW_BFLOAT16:
        return "bfloat16"
    return dtype.newbyteorder("=").name if computing_dtype(dtype) is not None else None


def _safetensors(path: Path) -> list[_Found]:
    """Read the header with the library's own reader, which checks it."""
    library = load("bench", "safetensors")
    try:
        with library.safe_open(path, framework="numpy") as file:
            found = []
            names = file.keys()
            for name in names:
                view = file.get_slice(name)
                spelt = view.get_dtype()
                found.append((name, tuple(view.get_shape()), _SAFETENSORS.get(spelt), spelt))
            return found
    except library.SafetensorError as error:
        reason = re.sub(r"^Error while deserializing header:\s*", "", str(error))
        raise UnreadableModel(
            f"{path}: not a safetensors file that can be read: {reason}"
        ) from error
