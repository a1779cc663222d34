"""Put other values into a saved npz file, and a list of contents that knows of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastadam.files.entries import describe
from fastadam.files.manifest import KEY, Manifest, pack, unpack


def sealed(path: Path, changes: dict[str, Any]) -> None:
    """Replace, add, or with ``...`` take out entries, as whoever can save could have saved it."""
    with np.load(path, allow_pickle=True) as file:
        values = {key: file[key] for key in file.files}
    versions = unpack(values.pop(KEY), "").versions
    for key, value in changes.items():
        values.pop(key, None)
        if value is not ...:
            values[key] = np.asarray(value)
    entries = {key: describe(value) for key, value in values.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in {**values, KEY: pack(Manifest(entries, versions))}.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, value)
