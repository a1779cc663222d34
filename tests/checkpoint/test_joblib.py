"""What the page about saving says of joblib: it cuts arrays apart, and how they stay together."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastadam

joblib = pytest.importorskip("joblib", reason="needs joblib, which scikit-learn brings")


def everything() -> dict[str, Any]:
    """A model and its optimizer, which hold the same array."""
    model = {"w": np.ones(2)}
    return {"model": model, "opt": fastadam.Adam(alpha=0.1).setup({"w": model["w"]})}


def moves(loaded: dict[str, Any]) -> bool:
    """Tell whether the model's array is what the optimizer trains."""
    loaded["opt"].apply_gradients({"w": np.ones(2)})
    return bool(loaded["model"]["w"][0] < 0.95)


def test_arrays_that_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "all.joblib"
    joblib.dump(everything(), path)
    loaded = joblib.load(path)
    assert loaded["opt"] == everything()["opt"]
    assert not moves(loaded)
    # also where there is no optimizer: it is joblib's way
    twice = np.ones(2)
    joblib.dump([twice, twice], path)
    one, other = joblib.load(path)
    assert one is not other


def test_what_keeps_them_together(tmp_path: Path) -> None:
    path = tmp_path / "all.joblib"
    assert moves(pickle.loads(pickle.dumps(everything())))
    joblib.dump(pickle.dumps(everything()), path)
    assert moves(pickle.loads(joblib.load(path)))
    joblib.dump(everything(), path)
    loaded = joblib.load(path)
    loaded["model"]["w"] = loaded["opt"].target["w"]
    assert moves(loaded)
    saved, loaded = everything(), everything()
    fastadam.save(tmp_path / "all.npz", saved["opt"])
    fastadam.load(tmp_path / "all.npz", loaded["opt"])
    assert moves(loaded)
