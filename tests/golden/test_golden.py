"""Files of older versions, and of Chainer, load for ever; `write.py` says how they are made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import CASES, from_chainer, record, step

import fastadam
from fastadam import serializers

HERE = Path(__file__).parent
OURS = sorted(path.parent for path in HERE.glob("*/expected.json") if "chainer" not in str(path))
CHAINERS = sorted(path.parent for path in HERE.glob("chainer-*/expected.json"))


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert found.pop("written by")
    return found


def files(folders: list[Path]) -> list[Any]:
    return [
        pytest.param(folder, name, file, id=f"{folder.name}/{file}")
        for folder in folders
        for name, case in expected(folder).items()
        for file in case["files"]
    ]


def needs(path: Path, saved: dict[str, Any]) -> None:
    if path.suffix == ".h5":
        pytest.importorskip("h5py", reason="HDF5 files need h5py")
    if '"bfloat16"' in json.dumps(saved):
        pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes")


def load_one(path: Path, obj: Any) -> None:
    load: Callable[..., None] = (
        serializers.load_npz if path.suffix == ".npz" else serializers.load_hdf5
    )
    load(path, obj)


def array(put_down: Any) -> Any:
    """An array as `expected.json` has it; its bytes are little-endian."""
    name, shape, data = put_down
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    if isinstance(name, str) and name.startswith("str"):
        return np.frombuffer(bytes.fromhex(data), "<U1")
    return np.frombuffer(bytes.fromhex(data), name).reshape(shape)


def scramble(opt: Any) -> None:
    """Make everything other than it was saved, so that only the file can tell."""
    for param in opt.parameters.values():
        if param.array is not None:
            param.array[...] = 3
        param.update_rule.enabled = not param.update_rule.enabled
    opt.alpha, opt.beta1, opt.eta = 0.5, 0.25, 2.0
    opt.epoch = 9
    opt.on_nonfinite = "raise"
    for link in opt.target.links() if hasattr(opt.target, "links") else ():
        for name in link._persistent:
            value = getattr(link, name)
            setattr(
                link, name, np.zeros_like(value) if isinstance(value, np.ndarray) else type(value)()
            )
    np.random.seed(99)


def as_saved(opt: Any, saved: dict[str, Any]) -> None:
    """Give a fresh optimizer what a file of its states alone does not hold."""
    for name, value in saved["hyperparam"].items():
        setattr(opt.hyperparam, name, value)
    give_parameters(opt, saved)


def give_parameters(opt: Any, saved: dict[str, Any]) -> None:
    for path, param in opt.parameters.items():
        if param.array is not None:
            param.array[...] = array(saved["parameters"][path]["array"])


def comparable(found: Any) -> Any:
    """What is the same after an update on every machine, in Chainer and here.

    NaN's bits are not, and whether an update of a parameter that is not initialised counts.
    """
    if isinstance(found, dict):
        return {
            key: comparable(value) for key, value in found.items() if key != "t" or "array" in found
        }
    if isinstance(found, list) and len(found) == 3 and found[0] in ("float32", "float64"):
        values = array(found).copy()
        values[np.isnan(values)] = np.nan
        return [*found[:2], values.tobytes().hex()]
    return found


def check(found: dict[str, Any], wanted: dict[str, Any], keys: Any, where: str) -> None:
    for key in keys:
        assert found[key] == wanted[key], f"{where}: {key}"


def goes_on(opt: Any, case: dict[str, Any], where: str) -> None:
    """One more update, and what it changes, is what it was."""
    step(opt)
    found, after = comparable(record(opt)), comparable({**case["saved"], **case["after"]})
    check(found, after, after, f"{where}, one update later")


@pytest.mark.parametrize(("folder", "name", "file"), files(OURS))
def test_files_of_older_versions(folder: Path, name: str, file: str) -> None:
    case = expected(folder)[name]
    saved, path = case["saved"], folder / file
    needs(path, saved)
    if ".model." in file:
        opt = CASES[name].make()
        scramble(opt)
        load_one(path, opt.target)
        found = record(opt)
        check(found, saved, ["persistent"], file)
        for key, param in saved["parameters"].items():
            assert found["parameters"][key].get("array") == param.get("array"), (file, key)
        return
    if ".optimizer" in file:
        opt, other = CASES[name].make(), CASES[name].make()
        as_saved(opt, saved)
        load_one(path, opt)
        # the other door
        as_saved(other, saved)
        report = fastadam.load(path, other, parameters=False)
        assert not report.verified
        check(record(other), saved, saved, f"{file}, fastadam.load")
    else:
        opt = CASES[name].make()
        scramble(opt)
        alone = "-alone" in file
        if alone:
            give_parameters(opt, saved)
        report = fastadam.load(path, opt, parameters=not alone)
        assert report.verified
        assert (report.missing, report.left, report.ignored, report.converted) == ((), (), (), ())
    check(record(opt), saved, saved, file)
    goes_on(opt, case, file)


@pytest.mark.parametrize(("folder", "name"), [(f, n) for f in CHAINERS for n in expected(f)])
def test_files_of_chainer(folder: Path, name: str) -> None:
    """Each optimizer's file with each model's, by both doors; then goes on as Chainer did."""
    case = expected(folder)[name]
    saved = case["saved"]
    models = [folder / file for file in case["files"] if ".model." in file]
    optimizers = [folder / file for file in case["files"] if ".optimizer." in file]
    for model in models:
        for path in optimizers:
            if ".h5" in (model.suffix, path.suffix):
                pytest.importorskip("h5py", reason="HDF5 files need h5py")
            for load in (load_one, lambda p, o: fastadam.load(p, o, parameters=False)):
                opt = from_chainer(fastadam)[name].make()
                opt.epoch = 9
                for param in opt.target.params():
                    if param.array is not None:
                        param.array[...] = 3
                opt.alpha = saved["hyperparam"]["alpha"]
                load_one(model, opt.target)
                load(path, opt)
                where = f"{model.name}, {path.name}"
                found = record(opt)
                if name == "half":  # masters are not in Chainer's files
                    saved["parameters"]["W"].pop("master", None)
                check(found, saved, saved, where)
                if name != "half":
                    goes_on(opt, case, where)


def test_nothing_is_left_out() -> None:
    """Every file that is there is tested, and every case has a file."""
    assert OURS
    assert CHAINERS
    for folder in OURS + CHAINERS:
        cases = expected(folder)
        listed = {file for case in cases.values() for file in case["files"]}
        assert {path.name for path in folder.iterdir()} == listed | {"expected.json"}
    assert {name for folder in OURS for name in expected(folder)} == set(CASES)
    assert {name for folder in CHAINERS for name in expected(folder)} == set(from_chainer(fastadam))
