"""Writes golden files: files of one version that every later one must load.

    python tests/golden/write.py tests/golden/COMMIT
    python tests/golden/write.py --chainer tests/golden/chainer-7.8.1

It is run once, with the version that the folder is named after: a folder that is there is never
written again. For a new kind of file, add cases and write a new folder. Beside the files is
``expected.json``, with all that an optimizer was when it was saved, and after one more update: it
was put down from the objects in memory, so that no reader of ours had a part in it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import CASES, from_chainer, record, step, trained

import fastadam
from fastadam import serializers

# How a file is written: by the name it ends in.
WRITERS: dict[str, Any] = {
    "save.npz": fastadam.save,
    "save-compressed.npz": lambda path, opt: fastadam.save(path, opt, compression=True),
    "save-alone.npz": lambda path, opt: fastadam.save(
        path, opt, parameters=False, compression=True
    ),
    "save.h5": fastadam.save,
    "save-compressed.h5": lambda path, opt: fastadam.save(path, opt, compression=True),
    "optimizer.npz": serializers.save_npz,
    "optimizer-plain.npz": lambda path, opt: serializers.save_npz(path, opt, compression=False),
    "optimizer.h5": serializers.save_hdf5,
    "optimizer-plain.h5": lambda path, opt: serializers.save_hdf5(path, opt, compression=None),
    "model.npz": lambda path, opt: serializers.save_npz(path, opt.target),
    "model.h5": lambda path, opt: serializers.save_hdf5(path, opt.target),
}
# Which files are written of each case, so that they stay small together; of 'ways', all.
NPZ = ["save-compressed.npz"]
HDF5 = ["save-compressed.h5"]
MODEL = ["model.npz", "model.h5"]
KINDS = {
    "ways": [ending for ending in WRITERS if ending not in HDF5 + MODEL],
    "adamw": ["optimizer.npz"],
    "float16": ["optimizer.npz"],
    "bfloat16": [*HDF5, "optimizer.npz", "optimizer.h5"],
    "masters_dynamic": HDF5,
    "masters_static": [*NPZ, "optimizer.npz", "optimizer.h5"],
    "one_array": ["optimizer.npz"],
    "chain": [*NPZ, "optimizer.h5", *MODEL],
    "link": [*NPZ, *MODEL],
    "lazy": [*NPZ, *MODEL],
    "lazy_made": HDF5,
}


def write(folder: Path) -> dict[str, Any]:
    """Write the files of this fastadam; return what is expected of each case."""
    expected: dict[str, Any] = {}
    for name, case in CASES.items():
        opt = trained(case)
        saved = record(opt)
        files = [f"{name}.{ending}" for ending in KINDS.get(name, NPZ)]
        for file in files:
            WRITERS[file.partition(".")[2]](folder / file, opt)
        step(opt)
        expected[name] = {"files": files, "saved": saved, "after": changed(saved, record(opt))}
    return expected


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what an update has changed."""
    return {key: value for key, value in after.items() if value != before[key]}


def write_chainer(folder: Path) -> dict[str, Any]:
    """Write Chainer's files, by Chainer alone; return what is expected of each case."""
    import chainer

    writers = {"npz": chainer.serializers.save_npz, "h5": chainer.serializers.save_hdf5}
    expected: dict[str, Any] = {}
    for name, case in from_chainer(chainer).items():
        opt = trained(case)
        saved = record(opt)
        kinds = ["optimizer.npz", "model.npz"]
        # Chainer's HDF5 files are large
        kinds += {"adamw": ["optimizer.h5", "model.h5"], "lazy": ["model.h5"]}.get(name, [])
        files = [f"{name}.{kind}" for kind in kinds]
        for file in files:
            value = opt if "optimizer" in file else opt.target
            writers[file.rpartition(".")[2]](str(folder / file), value)
        step(opt)
        expected[name] = {"files": files, "saved": saved, "after": changed(saved, record(opt))}
    return expected


def versions(chainer: bool) -> dict[str, str]:
    """With what the files were written."""
    import h5py

    found = {
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    if chainer:
        import chainer as theirs

        return {"chainer": theirs.__version__, **found}
    return {"fastadam": fastadam.__version__, **found}


def main() -> None:
    """Write a folder that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="named after the version that runs")
    parser.add_argument("--chainer", action="store_true", help="write Chainer's own files")
    arguments = parser.parse_args()
    arguments.folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = (write_chainer if arguments.chainer else write)(arguments.folder)
    lines = [f'"written by": {json.dumps(versions(arguments.chainer))}']
    lines += [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in made.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (arguments.folder / "expected.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
