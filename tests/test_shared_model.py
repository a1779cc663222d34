"""Two optimizers that update one model at once: what is computed is theirs, but nothing breaks."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np
import pytest

import fastadam
from fastadam.optimizer_hooks import GradientClipping

pytestmark = pytest.mark.serial

campaign_only = pytest.mark.skipif(
    os.environ.get("FASTADAM_CAMPAIGN") != "on", reason="minutes long: tox -e campaign"
)


def stress(seconds: float) -> dict[str, int]:
    """Let two optimizers run freely over the same arrays, and one thread read and save them."""
    params = {f"p{i}": np.zeros((i % 5, 4000), np.float32) for i in range(12)}
    opts = [
        fastadam.AMSGrad(alpha=1e-3).setup(params),
        fastadam.AdaBound(alpha=1e-3).setup(dict(params)),
    ]
    opts[1].add_hook(GradientClipping(1.0))
    done = {"updates": 0, "reads": 0}
    wrong: list[BaseException] = []
    end = time.monotonic() + seconds

    def guarded(work: Any) -> None:
        try:
            while time.monotonic() < end:
                work()
        except BaseException as error:
            wrong.append(error)

    def refusable(work: Any, *args: Any) -> None:
        # while it is read, it is not updated, and the other way round
        try:
            work(*args)
        except RuntimeError as error:
            if "another thread" not in str(error):
                raise

    def update(opt: Any, seed: int) -> None:
        refusable(update_alone, opt, seed)

    def update_alone(opt: Any, seed: int) -> None:
        random = np.random.default_rng([seed, opt.t])
        grads = {k: random.normal(size=p.shape).astype(np.float32) for k, p in params.items()}
        opt.monitor = opt.t % 3 == 0
        opt.apply_gradients(grads)

    def read() -> None:
        fastadam.snapshot(params)
        refusable(fastadam.serializers.serialize, opts[0])
        done["reads"] += 1

    works = [
        *(lambda opt=opt, i=i: update(opt, i) for i, opt in enumerate(opts)),
        read,
    ]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    for opt in opts:
        done["updates"] += opt.t
        for param in opt.parameters.values():
            assert param.update_rule.t == opt.t
            for value in param.update_rule.state.values():
                assert np.isfinite(value).all()
    assert all(np.isfinite(array).all() for array in params.values())
    return done


def test_free_running() -> None:
    done = stress(1.0)
    assert done["updates"] > 4
    assert done["reads"] > 0


@campaign_only
def test_free_running_for_a_minute() -> None:
    assert stress(60.0)["updates"] > 100
