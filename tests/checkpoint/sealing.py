"""Put other values into a saved file, and a list of contents that knows of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastadam.files.entries import describe, describe_all
from fastadam.files.formats import format_of
from fastadam.files.manifest import KEY, Manifest, pack, unpack


def sealed(path: Path, changes: dict[str, Any], listed: bool = True) -> None:
    """Replace, add, or with ``...`` take out entries, as whoever can save could have saved it.

    Unless `listed`, the list of contents is left as it was: the file is damaged.
    """
    with format_of(path).opened(path) as reader:
        values = {key: reader.read(key, None) for key in list(reader.keys())}
    manifest = unpack(values.pop(KEY), "")
    for key, value in changes.items():
        values.pop(key, None)
        if value is not ...:
            values[key] = np.asarray(value)
    if listed:
        entries = {key: describe(value) for key, value in values.items()}
        manifest = Manifest(entries, manifest.versions)
    packed = pack(manifest)
    if path.suffix != ".npz":
        told = describe_all(values)
        format_of(path).write(path, {**values, KEY: packed}, False, lambda _: None, told)
        return
    # with names that no writer of ours would write
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in {**values, KEY: packed}.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, value)


def keys_of(path: Path) -> list[str]:
    """Return what a file holds, but for the list of it."""
    with format_of(path).opened(path) as reader:
        return sorted(set(reader.keys()) - {KEY})
