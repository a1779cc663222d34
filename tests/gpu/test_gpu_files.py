"""Files know nothing of devices: what a GPU has saved a CPU loads, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import assert_same_bits

import fastadam
from fastadam import serializers

FORMATS = ["npz", pytest.param("h5", id="h5")]


def make(xp: Any, dtype: Any = np.float16) -> Any:
    random = np.random.default_rng(0)
    params = {
        k: xp.asarray(random.normal(size=(6, n)).astype(dtype))
        for k, n in zip("ab", (3, 50), strict=True)
    }
    opt = fastadam.AMSBound(alpha=0.1).setup(params)
    opt.use_fp32_update()
    opt.loss_scaling(interval=5)
    return opt


def step(opt: Any, xp: Any, n: int) -> None:
    for _ in range(n):
        random = np.random.default_rng(opt.t)
        opt.apply_gradients(
            {
                k: xp.asarray(random.normal(size=p.shape).astype(np.float16))
                for k, p in opt.parameters.items()
            },
            loss_scale=opt.loss_scale,
        )


def save(opt: Any, path: Path) -> None:
    if path.suffix == ".h5":
        pytest.importorskip("h5py")
        serializers.save_hdf5(path, opt)
    else:
        serializers.save_npz(path, opt)


def load(opt: Any, path: Path) -> None:
    (serializers.load_hdf5 if path.suffix == ".h5" else serializers.load_npz)(path, opt)


def contents(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {key: (file[key].dtype, file[key].tobytes()) for key in file.files}
    import h5py

    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()})
                if isinstance(item, h5py.Dataset) and not isinstance(item[()], bytes)
                else None
            )
        )
    return found


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_are_the_same(cupy: Any, tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in ("there", "here")]
    for path, xp in zip(paths, (cupy, np), strict=True):
        opt = make(xp)
        step(opt, xp, 3)
        save(opt, path)
    assert contents(paths[0])
    assert contents(paths[0]) == contents(paths[1])


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("onto_gpu", [True, False])
def test_a_run_goes_on_elsewhere(cupy: Any, tmp_path: Path, suffix: str, onto_gpu: bool) -> None:
    first, second = (np, cupy) if onto_gpu else (cupy, np)
    whole = make(np)
    step(whole, np, 6)
    opt = make(first)
    step(opt, first, 3)
    path = tmp_path / f"state.{suffix}"
    save(opt, path)
    other = make(second)
    for key, param in other.parameters.items():
        array = opt.parameters[key].array
        param.array = second.asarray(array if first is np else array.get())
    load(other, path)
    step(other, second, 3)
    assert other.t == whole.t
    assert other.loss_scale == whole.loss_scale
    for key, param in whole.parameters.items():
        twin = other.parameters[key]
        for one, two in (
            (twin.array, param.array),
            *((twin.update_rule.state[k], v) for k, v in param.update_rule.state.items()),
            (twin.update_rule._fp32_param.array, param.update_rule._fp32_param.array),
        ):
            assert type(one) is second.ndarray
            assert_same_bits(one, two)


@pytest.mark.parametrize("suffix", FORMATS)
def test_links_are_loaded_where_they_are(cupy: Any, tmp_path: Path, suffix: str) -> None:
    model = fastadam.Link(W=(3, 4), b=(4,))
    model.W.array[...] = np.arange(12).reshape(3, 4)
    model.add_persistent("mean", np.arange(4.0))
    path = tmp_path / f"model.{suffix}"
    save(model, path)
    twin = fastadam.Link(W=(3, 4), b=(4,))
    twin.add_persistent("mean", np.zeros(4))
    twin.to_device("@cupy:0")
    array = twin.W.array
    load(twin, path)
    assert twin.W.array is array
    assert_same_bits(twin.W.array, model.W.array)
    assert type(twin.mean) is cupy.ndarray
    assert twin.mean.get().tolist() == [0, 1, 2, 3]


def test_comparisons_know_no_devices(cupy: Any) -> None:
    opts = [make(cupy), make(np)]
    for opt, xp in zip(opts, (cupy, np), strict=True):
        step(opt, xp, 2)
    assert fastadam.compare(*opts).equal
    assert opts[0] == opts[1]
    state = opts[0].parameters["b"].update_rule.state["v"]
    state[2, 3] = state[2, 4]
    assert opts[0] != opts[1]
    found = fastadam.compare(*opts)
    assert not found.equal
    assert "b" in str(found)
    assert "v" in str(found)
