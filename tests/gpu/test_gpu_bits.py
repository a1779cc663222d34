"""The program that compares bits: what it compares, and that it sees what differs."""

from __future__ import annotations

from typing import Any

import bits
import pytest
from cuda_on_cpu.memory import counting

import fastadam

STATES = ("p", "exp_avg", "exp_avg_sq")


def test_bits(cupy: Any) -> None:
    pytest.importorskip("ml_dtypes")
    for configuration in bits.configurations(small=False):
        found = list(bits.differing(cupy, configuration, (1, 5)))
        assert len(found) >= 6
        assert not any(is_other for _, is_other in found), configuration


def test_a_sanitizer_sees_the_kernels_of_hooks(stand_in: Any) -> None:
    pytest.importorskip("ml_dtypes")
    with counting() as counts:
        for configuration in bits.configurations(small=True):
            list(bits.differing(stand_in, configuration, (5,)))
    # bound_rate is fastadam.torch's
    assert {"adam", "squares", "add_chunks", "clip_rate", "change", "lars_rates"} <= set(
        counts.kernels
    )


def test_bits_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU in the place of the GPU."""
    torch = pytest.importorskip("torch", reason="needs torch")
    for kind in ("float32", "bfloat16"):
        found = dict(bits.torch_differing(torch, "cpu", kind, (1, 5)))
        assert found.keys() == {f"p{i} {what}" for i in (0, 1) for what in STATES}
        assert not any(found.values())
    rates = iter([0.01, 0.010001])
    library = fastadam.torch
    make = library.AdamW
    monkeypatch.setattr(library, "AdamW", lambda own, lr, **given: make(own, next(rates), **given))
    found = dict(bits.torch_differing(torch, "cpu", "float32", (5,)))
    assert found == {"p0 p": True, "p0 exp_avg": False, "p0 exp_avg_sq": False}


def test_other_bits_are_found(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alphas = iter([0.01, 0.010001])
    make = bits.OPTIMIZERS["Adam"]
    monkeypatch.setitem(bits.OPTIMIZERS, "Adam", lambda: with_alpha(make(), next(alphas)))
    configuration = bits.Configuration("Adam", "float32", "plain", 0)
    found = dict(bits.differing(cupy, configuration, (5,)))
    assert found == {"p0 p": True, "p0 m": False, "p0 v": False}


def with_alpha(opt: Any, alpha: float) -> Any:
    opt.hyperparam.alpha = alpha
    return opt
