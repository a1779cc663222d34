"""Parts of npz files: arrays as bytes, headers that may promise anything, members of an archive."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def npy(array: Any) -> bytes:
    """An array as a member holds it, pickled where it holds objects."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """The header of an array, whatever it promises."""
    file = io.BytesIO()
    told = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue()


def members(path: Path) -> dict[str, bytes]:
    """The members of an archive, by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(*parts: dict[str, bytes]) -> bytes:
    """An archive of members, of which two may have one name if they are of two parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in parts:
            for name, data in part.items():
                opened.writestr(name, data)
    return file.getvalue()
