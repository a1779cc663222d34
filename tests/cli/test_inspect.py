"""`inspect`: what a file holds, with small values; names cannot reach the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastadam
from fastadam.__main__ import main
from fastadam.serializers import save_hdf5, save_npz


def test_small_values_are_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = fastadam.Adam(alpha=0.0625).setup({"w": np.array([1.5, -2.0]), "b": np.ones(50)})
    opt.apply_gradients({"w": np.ones(2), "b": np.ones(50)})
    fastadam.save(path, opt)
    assert main(["inspect", str(path)]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["key"] == ["key", "dtype", "shape", "bytes", "value"]
    assert lines["fastadam/hyperparam/alpha"][-1] == "0.0625"
    assert lines["fastadam/settings/on_nonfinite"][-1] == "propagate"
    assert lines["optimizer/t"][-1] == "1"
    assert lines["target/b"][-1] == "400"
    assert main(["inspect", "--json", str(path)]) == 0
    found = {e["key"]: e["value"] for e in json.loads(capsys.readouterr().out)["entries"]}
    assert found["fastadam/hyperparam/amsgrad"] is False
    assert found["target/b"] is None
    assert found["optimizer/epoch"] == 0
    assert found["target/w"] == opt.target["w"].tolist()


def test_names_and_values_are_printed_escaped(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = save_npz if path.suffix == ".npz" else save_hdf5
    evil = "\x1b[2J\x07\u202e\nend"
    save(path, {evil: 1, "text": evil, "bytes": evil.encode(), "none": None, "many": np.ones(99)})
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert out.count(r"\x1b[2J\x07\u202e\nend") == 2
    damaged = path.with_name(f"{evil}{path.suffix}")
    damaged.write_bytes(b"nonsense")
    assert main(["inspect", str(damaged)]) == 1
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert r"\x1b[2J" in error
