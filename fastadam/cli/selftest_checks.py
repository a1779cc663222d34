"""The checks behind ``selftest``: the published digests, and the formula in array operations."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastadam.algorithms.adam import ADAM
from fastadam.algorithms.coefficients import step_coefficients
from fastadam.cli import fixed_run, hard_run
from fastadam.kernels.reference import adam_reference
from fastadam.kernels.step import adam_step

__all__ = [
    "PUBLISHED",
    "PUBLISHED_PARTS",
    "PUBLISHED_SECOND",
    "PUBLISHED_SECOND_PARTS",
    "check_digest",
    "check_reference",
    "check_second_digest",
    "first_difference",
    "known_to_differ",
]

Array = npt.NDArray[Any]

# SHA-256 over the bytes of all parts, in the order of `fixed_run.VARIANTS`, float32 first in each.
PUBLISHED = "31f0199589e41339badf1cf8af288368bb79d16a20d58fd7d1533b4ca047208f"
# The first 16 digits of each part's own, to tell where a difference is.
PUBLISHED_PARTS = {
    "adam float32": "3d95fbf9804a09d3",
    "adam float64": "f84f01eb0a7af94e",
    "adamw float32": "6ef6464fede1bf0b",
    "adamw float64": "26a81dcfbe7a3a95",
    "amsgrad float32": "f9bfec6362ce1354",
    "amsgrad float64": "da5be2eb4d5d35f2",
    "adabound float32": "0a983e8c9739ff4f",
    "adabound float64": "2589fee22dc84021",
    "amsbound float32": "d0802053e438ae2e",
    "amsbound float64": "65a8a0cba3364281",
}

# The same over the parts of `hard_run.PARTS`, in their order.
PUBLISHED_SECOND = "7563937e724d674ffdc3cbdb7dce2074025c0ec887262a784db3c2c45b569c78"
PUBLISHED_SECOND_PARTS = {
    "float16": "6ec8dc2676491c30",
    "bfloat16": "b966d35f6f8ac932",
    "hooks float16": "6870e23f0c8eeeaa",
    "hooks float32": "e46aa2ff3067d4f7",
    "hooks float64": "35eb14199b9fd6a8",
    "scales float16": "90e2370ebbeea0d9",
    "scales float32": "c988b420d047f5bf",
    "scales float64": "1bbee08a6cd0bf77",
    "NaN float16": "f6b95cc11f2fac15",
    "NaN float32": "dc15798db2213df8",
    "NaN float64": "74594334659f5fbd",
    "edge float32": "6ee89d90c5d7a80a",
    "edge float64": "fb7b73996e806097",
    "powers float32": "d43fb64936870c8c",
    "powers float64": "e7d86a441b6f5f00",
}
# Where a machine is known to differ, by its name, as the documentation says.
_KNOWN = {"aarch64": {"edge float32"}, "arm64": {"edge float32"}}

_REFERENCE_STEPS = 7
# Unlike the fixed run, usual betas: both sides take the same scalars.
_REFERENCE = {"beta1": 0.9, "beta2": 0.999}


def check_digest(report: Callable[[str, bool], object]) -> tuple[str, list[str]]:
    """Make the fixed run of every variant and dtype and compare it with what is published.

    Each part's name and whether it is good is reported after it.

    Returns
    -------
    sha256 : str
        The digest over all results.
    differences : list of str
        What is wrong, a sentence each; empty if nothing is.
    """
    whole = hashlib.sha256()
    differences = []
    for variant in fixed_run.VARIANTS:
        for dtype in fixed_run.DTYPES:
            part = f"{variant} {dtype}"
            plain = fixed_run.train(variant, dtype, fixed_run.N_STEPS, mixed=False)
            mixed = fixed_run.train(variant, dtype, fixed_run.N_STEPS, mixed=True)
            data = fixed_run.serialized(plain)
            whole.update(data)
            sha = hashlib.sha256(data).hexdigest()
            found = []
            if sha[:16] != PUBLISHED_PARTS[part]:
                found.append(f"{part}: digest {sha[:16]}, published {PUBLISHED_PARTS[part]}")
            where = first_difference(mixed, plain)
            if where:
                found.append(f"{part}: threads and calls one by one change the result: {where}")
            differences += found
            report(part, not found)
    sha = whole.hexdigest()
    if sha != PUBLISHED and not differences:
        differences.append(f"the digest over all parts is {sha}, published {PUBLISHED}")
    return sha, differences


def check_second_digest(report: Callable[[str, bool], object]) -> tuple[str, list[str]]:
    """Make the run of what the first digest does not see, and compare it with what is published.

    It reports and returns what `check_digest` does. A difference that this machine is
    known to have is reported, and is no entry of the list.
    """
    whole = hashlib.sha256()
    differences = []
    known = known_to_differ()
    for part in hard_run.PARTS:
        data = hard_run.canonical(hard_run.results(part, mixed=True))
        whole.update(data)
        sha = hashlib.sha256(data).hexdigest()[:16]
        good = sha == PUBLISHED_SECOND_PARTS[part]
        if not good and part not in known:
            differences.append(f"{part}: digest {sha}, published {PUBLISHED_SECOND_PARTS[part]}")
        report(part, good)
    sha = whole.hexdigest()
    if sha != PUBLISHED_SECOND and not differences and not known:
        differences.append(f"the second digest is {sha}, published {PUBLISHED_SECOND}")
    return sha, differences


def known_to_differ() -> set[str]:
    """Return the parts of the second digest in which this machine is known to differ."""
    return _KNOWN.get(platform.machine().lower(), set())


def check_reference() -> list[str]:
    """Compare a shorter run, and `fastadam.adam_step`, with the array formula, bit for bit.

    Returns
    -------
    list of str
        What is wrong, a sentence each; empty if nothing is.
    """
    differences = []
    for variant in fixed_run.VARIANTS:
        for dtype in fixed_run.DTYPES:
            ours = fixed_run.train(variant, dtype, _REFERENCE_STEPS, mixed=True, **_REFERENCE)
            expected, stepped = _reference(variant, dtype)
            for name, results in (("Optimizer.update", ours), ("adam_step", stepped)):
                where = first_difference(results, expected)
                if where:
                    differences.append(
                        f"{variant} {dtype}: {name} differs from the array formula: {where}"
                    )
    return differences


def first_difference(results: fixed_run.Results, expected: fixed_run.Results) -> str | None:
    """Say where two results first differ in a bit; None if they do not."""
    for parameter, arrays in expected.items():
        for key, array in arrays.items():
            bits = np.dtype(f"u{array.itemsize}")
            ours, theirs = results[parameter][key].ravel(), array.ravel()
            different = np.flatnonzero(ours.view(bits) != theirs.view(bits))
            if different.size:
                i = different[0]
                return (
                    f"{key} of {parameter!r}, {different.size} of {array.size} elements, "
                    f"the first at {i}: {ours[i]!r} instead of {theirs[i]!r}"
                )
    return None


def _reference(variant: str, dtype: str) -> tuple[fixed_run.Results, fixed_run.Results]:
    """Make the shorter run with the array formula and with ``adam_step``."""
    opt = fixed_run.made(variant, **_REFERENCE)
    hyperparam = opt.hyperparam.get_dict()
    keys = ADAM.needed(opt.hyperparam)
    both: list[fixed_run.Results] = [
        {
            name: {"p": p, **{key: np.zeros_like(p) for key in keys}}
            for name, p in fixed_run.parameters(dtype).items()
        }
        for _ in range(2)
    ]
    arguments = {name: value for name, value in hyperparam.items() if name != "amsgrad"}
    for t, grads in zip(range(1, _REFERENCE_STEPS + 1), fixed_run.gradients(dtype), strict=False):
        coefficients = step_coefficients(hyperparam, t)
        for name, g in grads.items():
            ours = both[0][name]
            of_reference: list[Any] = [ours["p"], g, *map(ours.get, ADAM.state), coefficients]
            adam_reference(*of_reference)
            p, *state = both[1][name].values()
            adam_step(p, g, *state, t=t, **arguments)
    return both[0], both[1]
