"""Files that somebody made to hurt: no hang, no memory beyond the bound, no other files."""

from __future__ import annotations

import difflib
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam import CheckpointError
from fastadam.checkpoint.source import Source
from fastadam.files.manifest import KEY
from fastadam.files.none import is_pickled_none
from fastadam.serializers import load_hdf5, load_npz

LOAD = """
import resource, sys
import numpy as np
import fastadam
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    fastadam.load(sys.argv[1], fastadam.Adam().setup({'w': np.ones(3)}), parameters=False)
except fastadam.CheckpointError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


def refused(path: Path) -> tuple[int, str]:
    """Load in a process of its own; return by how many KB its memory grew, and the error."""
    argv = [sys.executable, "-c", LOAD, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    grown, _, error = done.stdout.partition(" ")
    return int(grown), error


def member(descr: str, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An array as npz files hold it, whatever its header promises."""
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key, data in members.items():
            file.writestr(f"{key}.npy", data)


# A tuple of itself and itself, sixty times over: to hash it takes 2**60 steps.
NESTED = b"\x80\x04)" + b"q\x00h\x00\x86" * 60 + b"h\x00"


@pytest.mark.parametrize(
    "data",
    [
        NESTED + b"\x93.",
        b"\x80\x04" + NESTED[2:] + b"h\x00R.",
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n" + NESTED[2:] + b"R.",
    ],
)
def test_nested_pickles_end_at_once(tmp_path: Path, data: bytes) -> None:
    assert not is_pickled_none(data)
    path = tmp_path / "run.npz"
    archive(path, {"t": member("|O", (), data)})
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    with pytest.raises(CheckpointError, match="Python objects"):
        fastadam.load(path, opt, parameters=False)
    with pytest.raises(ValueError, match="'t'"):
        load_npz(path, opt)


def header(path: Path) -> None:
    size = 1 << 28
    told = b"\x93NUMPY\x02\x00" + struct.pack("<I", size)
    archive(path, {"t": told + b" " * size})


def contents(path: Path) -> None:
    size = 1 << 27
    archive(path, {KEY: member("|u1", (size,), b"[" * size)})


def hooks(path: Path) -> None:
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    opt.apply_gradients({"w": np.ones(3)})
    fastadam.save(path, opt, parameters=False)
    with zipfile.ZipFile(path) as file:
        members = {
            name.removesuffix(".npy"): file.read(name)
            for name in file.namelist()
            if not name.startswith(KEY)
        }
    many = {
        f"fastadam/hyperparam/k{i}": member("|u1", (1 << 20,), bytes(1 << 20)) for i in range(200)
    }
    archive(path, {**members, **many, KEY: manifest_of({**members, **many})})


def manifest_of(members: dict[str, bytes]) -> bytes:
    """The list of contents that goes with members."""
    from fastadam.files.entries import describe
    from fastadam.files.manifest import Manifest, pack

    arrays = {key: np.load(io.BytesIO(data)) for key, data in members.items()}
    packed = pack(Manifest({key: describe(value) for key, value in arrays.items()}, {}))
    return member("|u1", packed.shape, packed.tobytes())


@pytest.mark.parametrize(
    ("make", "words"), [(header, "268,435,456"), (contents, "room for"), (hooks, "room for")]
)
def test_npz_files_that_promise_too_much(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "run.npz")
    grown, error = refused(tmp_path / "run.npz")
    assert words in error
    assert grown < 120_000


def chunk(file: Any, h5py: Any) -> None:
    file.create_dataset(
        "t", (1,), "f8", maxshape=(None,), chunks=(1 << 25,), compression=9, data=[1.0]
    )


def strings(file: Any, h5py: Any) -> None:
    values = np.array(["x" * 10_000] + [""] * 50_000, dtype=object)
    file.create_dataset("t", data=values, dtype=h5py.string_dtype())


@pytest.mark.parametrize(("make", "words"), [(chunk, "room for"), (strings, "of any length")])
def test_hdf5_files_that_promise_too_much(
    tmp_path: Path, make: Callable[[Any, Any], None], words: str
) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "run.h5", "w") as file:
        make(file, h5py)
    grown, error = refused(tmp_path / "run.h5")
    assert words in error
    assert grown < 120_000


@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_no_other_file_is_read(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(3.0).tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.arange(3.0)
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file["t"] = file["w/t"] = 1
        file["epoch"] = 0
        file["w/v"] = np.zeros(3)
        if kind == "external":
            file.create_dataset("w/m", (3,), "f8", external=[(str(secret), 0, 24)])
        else:
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
            file.create_virtual_dataset("w/m", layout)
    opt = fastadam.Adam().setup({"w": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"'w/m' in .* has its values in another file"):
        fastadam.load(path, opt, parameters=False)
    with pytest.raises(ValueError, match=r"'w/m' in .* has its values in another file"):
        load_hdf5(path, opt)
    assert opt.t == 0


def test_a_shape_of_infinity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fastadam.__main__ import main

    entries = {"a": ["float32", [float("inf")], "x"]}
    content = {"sha256": "x", "format": 1, "versions": {}, "entries": entries}
    data = json.dumps(content).encode()
    path = tmp_path / "run.npz"
    archive(path, {KEY: member("|u1", (len(data),), data)})
    with pytest.raises(CheckpointError, match="list of contents"):
        fastadam.load(path, fastadam.Adam().setup({"w": np.ones(3)}))
    assert main(["inspect", str(path)]) == 1
    assert "list of contents" in capsys.readouterr().err


def test_loading_takes_time_for_each_parameter_once(tmp_path: Path) -> None:
    params = {f"w{i}": np.ones(1) for i in range(600)}
    opt = fastadam.Adam().setup(params)
    opt.apply_gradients({key: np.ones(1) for key in params})
    fastadam.save(tmp_path / "run.npz", opt)
    # what there is to say of a key that is missing takes long to find out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "about_missing", lambda self, key: pytest.fail(key))
        fastadam.load(tmp_path / "run.npz", fastadam.Adam().setup(params), strict=False)
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difflib, "get_close_matches", lambda name, *_, **__: seen.append(name) or [])
        fastadam.load(tmp_path / "run.npz", fastadam.Adam().setup(params))
    assert not [name for name in seen if "/" in name]
