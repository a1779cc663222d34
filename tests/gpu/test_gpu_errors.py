"""The table of mistakes with GPUs: what comes of each, and that nothing has changed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import assert_same_bits

import fastadam
from fastadam.kernels.gpu import engine
from fastadam.kernels.gpu.source import SOURCE
from fastadam.optimizer_hooks import WeightDecay

PAGE = Path(__file__).parents[2] / "docs" / "gpu.rst"


def trained(cupy: Any) -> Any:
    opt = fastadam.AMSGrad(alpha=0.1).setup({"w": cupy.ones((2, 3), "f4"), "b": cupy.ones(3, "f4")})
    opt.apply_gradients(gradients(cupy))
    return opt


def gradients(xp: Any, **others: Any) -> dict[str, Any]:
    return {"w": xp.full((2, 3), 0.5, "f4"), "b": xp.full(3, 0.25, "f4")} | others


def everything(opt: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"t": opt.t, "epoch": opt.epoch, "report": repr(opt.last_update)}
    for path, param in opt.parameters.items():
        found[path] = param.array.get().tobytes()
        found[f"{path} t"] = param.update_rule.t
        for key, value in param.update_rule.state.items():
            found[f"{path} {key}"] = value.get().tobytes()
    return found


@contextmanager
def refused(opt: Any, error: type[Exception], *words: str) -> Iterator[None]:
    """Expect an error that says all words, and changes nothing; then one can go on."""
    before = everything(opt)
    with pytest.raises(error) as raised:
        yield
    for word in words:
        assert word in str(raised.value)
    assert everything(opt) == before


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    link = fastadam.Link(W=(2, 3))
    with pytest.raises(RuntimeError, match=r"needs CuPy.*cupy-cuda12x\[ctk\].*cupy-cuda13x\[ctk\]"):
        link.to_device("@cupy:0")
    assert type(link.W.array) is np.ndarray


def test_no_such_gpu(cupy: Any) -> None:
    n = cupy.cuda.runtime.getDeviceCount()
    opt = trained(cupy)
    for name in (f"@cupy:{n}", n, f"cuda:{n}"):
        with refused(opt, RuntimeError, f"no GPU {n}", f"finds {n}"):
            opt.parameters["w"].to_device(name)


def test_gradient_elsewhere(cupy: Any) -> None:
    opt = trained(cupy)
    with refused(opt, TypeError, "'b' is on @numpy, the parameter on @cupy:0", "cupy.asarray"):
        opt.apply_gradients(gradients(cupy, b=np.ones(3, "f4")))
    with refused(opt, TypeError, "'w' is on @numpy"):
        opt.apply_gradients(gradients(np))
    with refused(opt, TypeError, "'b' is on @numpy"):
        opt.parameters["b"].grad = np.ones(3, "f4")
    if cupy.cuda.runtime.getDeviceCount() > 1:
        with cupy.cuda.Device(1):
            there = cupy.ones(3, "f4")
        with refused(opt, TypeError, "'b' is on @cupy:1, the parameter on @cupy:0"):
            opt.apply_gradients(gradients(cupy, b=there))
    here = fastadam.Adam().setup(gradients(np))
    with pytest.raises(TypeError, match=r"'w' is on @cupy:0, the parameter on @numpy.*asnumpy"):
        here.apply_gradients(gradients(cupy))
    assert here.t == 0
    opt.apply_gradients(gradients(cupy))
    assert opt.t == 2


def test_gradient_of_another_shape_or_dtype(cupy: Any) -> None:
    opt = trained(cupy)
    with refused(opt, ValueError, "'b'", "(4,)", "(3,)"):
        opt.apply_gradients(gradients(cupy, b=cupy.ones(4, "f4")))
    with refused(opt, TypeError, "'b'", "int32"):
        opt.apply_gradients(gradients(cupy, b=cupy.ones(3, "i4")))
    with refused(opt, ValueError, "'b'"):
        opt.apply_gradients({"w": cupy.ones((2, 3), "f4")})


def test_state_elsewhere(cupy: Any) -> None:
    opts = [trained(cupy), trained(cupy)]
    state = opts[0].parameters["w"].update_rule.state
    state["m"] = state["m"].get()
    for opt in opts:
        opt.apply_gradients(gradients(cupy))
    assert type(opts[0].parameters["w"].update_rule.state["m"]) is cupy.ndarray
    assert everything(opts[0]) == everything(opts[1])


def test_gradient_that_is_not_finite(cupy: Any) -> None:
    opt = trained(cupy)
    opt.on_nonfinite = "raise"
    with refused(opt, FloatingPointError, "'b'"):
        opt.apply_gradients(gradients(cupy, b=cupy.full(3, np.nan, "f4")))
    opt.apply_gradients(gradients(cupy))
    with refused(opt, FloatingPointError, "'w'"):
        opt.apply_gradients(gradients(cupy, w=cupy.full((2, 3), np.inf, "f4")))


def test_shared_memory(cupy: Any) -> None:
    opt = trained(cupy)
    memory = cupy.zeros(10, "f4")
    with refused(opt, ValueError, "'a' and 'c' share part of their memory"):
        opt.setup({"a": memory[:6], "c": memory[5:]})


def test_update_that_cannot_be_captured(cupy: Any) -> None:
    opt = trained(cupy)
    opt.add_hook(WeightDecay(0.1))
    opt.apply_gradients(gradients(cupy))
    given = gradients(cupy)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            with pytest.raises(RuntimeError, match="GradientClipping as the only hook"):
                opt.apply_gradients(given)
        finally:
            stream.end_capture()
    assert opt.t == 2
    opt.apply_gradients(given)
    assert opt.t == 3


def test_capture_in_global_mode_that_comes_too_early(cupy: Any) -> None:
    opt = trained(cupy)
    opt.monitor = True
    given = gradients(cupy)
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    with stream:
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
        with pytest.raises(
            RuntimeError, match=r"does not (allocate|load).*make one more such update"
        ):
            opt.apply_gradients(given)
        with pytest.raises(RuntimeError, match="Invalidated"):
            stream.end_capture()
        assert opt.t == 1
        with pytest.raises(RuntimeError, match="no captured update"):
            opt.prepare_replay()
        opt.apply_gradients(given)
        assert opt.t == 2
        assert opt.last_update.nonfinite == ()
        stream.synchronize()


def test_replay_without_a_capture(cupy: Any) -> None:
    opt = trained(cupy)
    with refused(opt, RuntimeError, "no captured update", "begin_capture"):
        opt.prepare_replay()
    given = gradients(cupy)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        opt.apply_gradients(given)
        stream.end_capture()
    opt.parameters["w"].update_rule.t = 7
    with refused(opt, RuntimeError, "changed since", "capture another"):
        opt.prepare_replay()


def test_kernel_that_does_not_compile(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = trained(stand_in)
    # another kernel than that of the update before, whose launch may be kept
    opt.monitor = True
    monkeypatch.setattr(engine, "SOURCE", "nonsense")
    engine.forget()
    with refused(opt, RuntimeError, "nonsense"):
        opt.apply_gradients(gradients(stand_in))
    monkeypatch.undo()
    engine.forget()


def test_the_first_update_whose_kernel_does_not_compile(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = fastadam.Adam().setup({"w": stand_in.ones(3, "f4")})
    opt.apply_gradients({"w": stand_in.ones(3, "f4")})
    before = opt.parameters["w"].array.get()
    fresh = fastadam.Adam().setup({"w": stand_in.ones(3, "f4")})
    monkeypatch.setattr(engine, "SOURCE", "nonsense")
    engine.forget()
    with pytest.raises(RuntimeError, match="nonsense"):
        fresh.apply_gradients({"w": stand_in.ones(3, "f4")})
    assert fresh.t == 0
    assert fresh.parameters["w"].update_rule.t == 0
    monkeypatch.setattr(engine, "SOURCE", SOURCE)
    engine.forget()
    fresh.apply_gradients({"w": stand_in.ones(3, "f4")})
    assert_same_bits(fresh.parameters["w"].array, before)


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the tests")
def test_every_row_has_a_test() -> None:
    table = (
        PAGE.read_text(encoding="utf-8").partition("What goes wrong")[2].partition(".. _gpu-")[0]
    )
    named = re.findall(r"- ``(test_\w+)``", table)
    assert len(named) == table.count("   * - ") - 1
    assert all(callable(globals()[name]) for name in named)
