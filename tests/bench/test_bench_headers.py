"""Shapes read from the headers of models' files, and what is said of files that have none."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastadam.bench import headers
from fastadam.bench.cases import Tensor


def npz_of(path: Path, **members: bytes) -> Path:
    """Write a zip file with these members as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(header: str, version: int = 1) -> bytes:
    """Return the beginning of an .npy file with a header of these words."""
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode()


def safetensors_of(path: Path, header: Any, data: int) -> Path:
    """Write a safetensors file by hand."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    arrays = {
        "conv/W": np.ones((3, 4, 2), np.float32),
        "b": np.asfortranarray(np.ones((2, 3), ">f8")),
        "half": np.ones(5, np.float16),
        "scalar": np.float32(2),
        "labels": np.arange(3, dtype=np.int64),
        "spectrum": np.ones(2, np.complex64),
        "nothing": np.ones((0, 3), np.float32),
        "object": np.array([{}], object),
    }
    save(path, **arrays)
    case, left_out = headers.read_model(path)
    assert case.name == "model.npz"
    assert case.tensors == (
        Tensor("conv/W", (3, 4, 2), "float32"),
        Tensor("b", (2, 3), "float64"),
        Tensor("half", (5,), "float16"),
        Tensor("scalar", (), "float32"),
    )
    assert left_out == [
        "labels (int64)",
        "spectrum (complex64)",
        "nothing (empty)",
        "object (object)",
    ]


def test_npz_of_bfloat16_and_of_the_second_version(tmp_path: Path) -> None:
    stored = io.BytesIO()
    np.lib.format.write_array(stored, np.ones(3, np.float32), version=(2, 0))
    bf16 = npy("{'descr': '<V2', 'fortran_order': False, 'shape': (7, 2), }\n")
    case, _ = headers.read_model(npz_of(tmp_path / "a.npz", one=stored.getvalue(), two=bf16))
    assert case.tensors == (Tensor("one", (3,), "float32"), Tensor("two", (7, 2), "bfloat16"))


def test_the_data_of_an_npz_are_not_read(tmp_path: Path) -> None:
    # they are not even there
    large = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (50000, 768), }\n")
    case, _ = headers.read_model(npz_of(tmp_path / "a.npz", large=large))
    assert case.elements == 50000 * 768


BAD_MEMBERS = {
    "text": b"no array",
    "nothing": b"",
    "cut off": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n")[:30],
    "longer than the file": b"\x93NUMPY\x01\x00\xff\xff{",
    "two gigabytes": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
    "longer than a header": npy("{'descr': '<f4', 'shape': (3,), " + " " * 60_000 + "}\n", 2),
    "third version": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 3),
    "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }\n"),
    "a call": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (exit(),), }\n"),
    "no shape": npy("{'descr': '<f4', 'fortran_order': False, }\n"),
    "no dtype": npy("{'descr': 'f77', 'fortran_order': False, 'shape': (3,), }\n"),
}


@pytest.mark.parametrize("content", BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_bad_headers_in_an_npz(content: bytes, tmp_path: Path) -> None:
    path = npz_of(tmp_path / "bad.npz", weights=content)
    with pytest.raises(headers.UnreadableModel, match="weights") as raised:
        headers.read_model(path)
    assert str(path) in str(raised.value)


def test_bad_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    good = io.BytesIO()
    np.savez(good, w=np.ones(3))
    for content in (b"", b"no zip", good.getvalue()[: len(good.getvalue()) // 2]):
        path.write_bytes(content)
        with pytest.raises(headers.UnreadableModel, match=r"not an \.npz file that can be read"):
            headers.read_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(headers.UnreadableModel, match="there are no arrays in it"):
        headers.read_model(path)


@pytest.mark.parametrize("array", [np.arange(3), np.ones(2, complex), np.ones((0, 2))])
def test_nothing_to_step(array: Any, tmp_path: Path) -> None:
    path = tmp_path / "integers.npz"
    np.savez(path, only=array)
    with pytest.raises(headers.UnreadableModel, match=r"none of its arrays .*; it has only \("):
        headers.read_model(path)


def test_no_file_and_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    for name in ("missing.npz", "missing.safetensors", "folder.npz"):
        with pytest.raises(headers.UnreadableModel, match="there is no such file"):
            headers.read_model(tmp_path / name)
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(headers.UnreadableModel, match=r"must end in \.npz or \.safetensors"):
        headers.read_model(tmp_path / "model.pt")


def test_safetensors(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="needs safetensors, of the extra 'bench'")
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "F16", "shape": [], "data_offsets": [32, 34]},
        "d": {"dtype": "F64", "shape": [1], "data_offsets": [34, 42]},
        "e": {"dtype": "I64", "shape": [1], "data_offsets": [42, 50]},
        "f": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [50, 52]},
    }
    path = safetensors_of(tmp_path / "m.safetensors", header, 52)
    case, left_out = headers.read_model(path)
    assert sorted(case.tensors) == [
        Tensor("a", (2, 3), "float32"),
        Tensor("b", (4,), "bfloat16"),
        Tensor("c", (), "float16"),
        Tensor("d", (1,), "float64"),
    ]
    assert sorted(left_out) == ["e (I64)", "f (F8_E4M3)"]


def test_bad_safetensors_files(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="needs safetensors, of the extra 'bench'")
    path = tmp_path / "bad.safetensors"
    one = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    safetensors_of(path, one, 8)
    good = path.read_bytes()
    huge = struct.pack("<Q", 1 << 60) + b"{}"
    for content in (b"", b"x" * 100, huge, good[:-1], good[:12], good + b"more"):
        path.write_bytes(content)
        with pytest.raises(headers.UnreadableModel, match="not a safetensors file"):
            headers.read_model(path)
    for wrong in ([1], {"a": 1}, {"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}):
        safetensors_of(path, wrong, 8)
        with pytest.raises(headers.UnreadableModel, match="not a safetensors file"):
            headers.read_model(path)
    safetensors_of(path, {}, 0)
    with pytest.raises(headers.UnreadableModel, match="there are no arrays in it"):
        headers.read_model(path)
