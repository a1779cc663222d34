"""The published digest of the self-test is that of Chainer's own results."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fastadam.cli import fixed_run, selftest_checks

chainer = pytest.importorskip("chainer", reason="needs Chainer 7.8.1 on NumPy 1.26")


def chainer_results(variant: str, dtype: str) -> fixed_run.Results:
    """Make the fixed run with Chainer's optimizer."""
    kind, given = fixed_run.VARIANTS[variant]
    params = {name: chainer.Parameter(p) for name, p in fixed_run.parameters(dtype).items()}
    link = chainer.Link()
    with link.init_scope():
        for name, param in params.items():
            setattr(link, name, param)
    opt = getattr(chainer.optimizers, kind.__name__)(**given).setup(link)
    for _, grads in zip(range(fixed_run.N_STEPS), fixed_run.gradients(dtype), strict=False):
        for name, param in params.items():
            param.grad = grads[name].copy()
        opt.update()
    return {
        name: {
            "p": param.array,
            **{key: param.update_rule.state[key] for key in ("m", "v", "vhat")[: 2 + opt.amsgrad]},
        }
        for name, param in params.items()
    }


@pytest.mark.parametrize("variant", fixed_run.VARIANTS)
def test_float64_digest_is_that_of_chainer(variant: str) -> None:
    data = fixed_run.serialized(chainer_results(variant, "float64"))
    published = selftest_checks.PUBLISHED_PARTS[f"{variant} float64"]
    assert hashlib.sha256(data).hexdigest()[:16] == published


@pytest.mark.parametrize("variant", fixed_run.VARIANTS)
def test_float32_is_that_of_chainer_with_two_exceptions(variant: str) -> None:
    theirs = chainer_results(variant, "float32")
    ours = fixed_run.train(variant, "float32", fixed_run.N_STEPS, mixed=False)
    data = hashlib.sha256(fixed_run.serialized(ours)).hexdigest()
    assert data[:16] == selftest_checks.PUBLISHED_PARTS[f"{variant} float32"]
    # NumPy 1.26 computes Chainer's formula in float64 where an array has no dimension
    np.testing.assert_allclose(ours.pop("scalar")["p"], theirs.pop("scalar")["p"], rtol=1e-5)
    # the squares of these gradients are subnormal, which Chainer keeps and the kernels flush
    tiny = theirs.pop("tiny"), ours.pop("tiny")
    assert selftest_checks.first_difference(ours, theirs) is None
    assert np.any(tiny[0]["v"] != tiny[1]["v"])
