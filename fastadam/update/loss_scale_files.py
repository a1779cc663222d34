"""The loss scale in files: written, and read and checked before it is taken over."""

from __future__ import annotations

from typing import Any

from fastadam.algorithms.number import check_loss_scale
from fastadam.serializers.prepared import PreparedLoad
from fastadam.serializers.protocol import optional_child, optional_number, stored_entry

__all__ = ["prepare_loss_scale", "prepare_no_scale", "write_loss_scale"]

# What files hold of a loss scale, where there is one, under ``fastadam/``.
_ENTRIES = (
    "loss_scale",
    "loss_scale_dynamic",
    "loss_scale_multiplier",
    "loss_scale_nonfinite_ever",
)


def write_loss_scale(optimizer: Any, serializer: Any) -> None:
    """Write the loss scale, where there is one, under keys that Chainer does not read."""
    if optimizer._loss_scale is None:
        return
    child = serializer["fastadam"]
    child("loss_scale", float(optimizer._loss_scale))
    child("loss_scale_dynamic", bool(optimizer._loss_scaling_is_dynamic))
    child("loss_scale_multiplier", float(optimizer._loss_scaling_multiplier))
    child("loss_scale_nonfinite_ever", bool(optimizer._loss_scaling_isnan_ever))


def prepare_loss_scale(optimizer: Any, prepared: PreparedLoad, serializer: Any) -> None:
    """Read and check the loss scale, if the file has one."""
    child = optional_child(serializer, "fastadam")
    numbers = [optional_number(child, name) for name in _ENTRIES]
    if set(numbers) == {None}:
        return
    # they are written together: one that is missing is missed as any other value
    for name, found in zip(_ENTRIES, numbers, strict=True):
        if found is None:
            stored_entry(child, name, 0.0)
    scale, dynamic, multiplier, ever = numbers
    if scale is None:
        return
    check_loss_scale(scale, "the loss scale in the file")
    for name, flag in (("dynamic", dynamic), ("nonfinite_ever", ever)):
        if flag not in (None, 0, 1):
            raise ValueError(f"loss_scale_{name} is {flag} in the file, and no truth value")
    multiplier = 1.0 if multiplier is None else multiplier
    if not 1 <= multiplier <= 2:
        raise ValueError(
            f"the loss scale in the file grows by the factor {multiplier} with each update; it "
            "must be from 1 to 2"
        )
    _prepare(optimizer, prepared, scale, bool(dynamic), multiplier, bool(ever))


def prepare_no_scale(prepared: PreparedLoad, optimizer: Any) -> None:
    """Take over, when a load is made, that the loss of an optimizer is not scaled."""
    _prepare(optimizer, prepared, None)


def _prepare(
    optimizer: Any,
    prepared: PreparedLoad,
    scale: float | None,
    dynamic: bool = False,
    multiplier: float | None = None,
    ever: bool = False,
) -> None:
    """Let a load set the loss scale, or switch scaling off."""
    prepared.attribute(optimizer, "_loss_scale", scale)
    prepared.attribute(optimizer, "_loss_scaling_is_dynamic", dynamic)
    if multiplier is not None:
        prepared.attribute(optimizer, "_loss_scaling_multiplier", multiplier)
    prepared.attribute(optimizer, "_loss_scaling_isnan_ever", ever)
    prepared.attribute(optimizer, "_loss_scaling_isnan", False)
