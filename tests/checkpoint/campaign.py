"""Long campaigns against saved files; the tests run short ones.

Usage: python campaign.py flips|cuts|fuzz|interruptions SUFFIX N

What must never happen: a value that is loaded and is not the one that was saved, an error of
another kind than those that are documented, a hang, or memory beyond the bound. Files are loaded in
a process of their own, since libhdf5 may crash on crafted ones; a crash is counted and reported.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastadam
from fastadam import CheckpointError

FOLDER = Path(__file__).parent
# Of the address space of a process that loads: many times what it needs, and far below what a
# header can promise.
MEMORY = 3 << 30
SECONDS = 20


def make(seed: int = 0, n: int = 5) -> Any:
    """An optimizer, some steps old, of about 130 n bytes."""
    random = np.random.default_rng(seed)
    params = {"W": random.normal(size=(n, 7)).astype(np.float32), "b": random.normal(size=3)}
    opt = fastadam.AMSGrad(alpha=0.1 + seed).setup(params)
    opt.loss_scaling(interval=3)
    opt.apply_gradients({k: np.ones_like(p) for k, p in params.items()})
    return opt


def bits(opt: Any) -> list[Any]:
    """Everything that is loaded."""
    found: list[Any] = [opt.t, opt.epoch, opt.loss_scale, opt.hyperparam.get_dict()]
    for param in opt.parameters.values():
        found += [param.array.tobytes(), param.update_rule.t]
        found += [value.tobytes() for value in param.update_rule.state.values()]
    return found


def spoil(data: bytes, kind: str, random: np.random.Generator) -> bytes:
    """Return a file with one bit flipped, cut off, or with larger damage."""
    if kind == "cuts":
        return data[: int(random.integers(len(data)))]
    spoilt = bytearray(data)
    if kind == "flips":
        at = int(random.integers(8 * len(data)))
        spoilt[at // 8] ^= 1 << at % 8
        return bytes(spoilt)
    for _ in range(int(random.integers(1, 6))):
        at, n = int(random.integers(len(spoilt))), int(random.integers(1, 65))
        how = random.integers(5)
        if how == 0:
            spoilt[at : at + n] = random.bytes(n)
        elif how == 1:
            del spoilt[at : at + n]
        elif how == 2:
            spoilt[at:at] = random.bytes(n)
        elif how == 3:
            # numbers that lengths and offsets are spoilt by
            word = [b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b"\x80" * 8]
            spoilt[at : at + 8] = word[int(random.integers(4))]
        else:
            other = int(random.integers(len(spoilt)))
            spoilt[at : at + n] = spoilt[other : other + n]
    return bytes(spoilt)


def attack(kind: str, suffix: str, first: int, last: int) -> dict[str, int]:
    """Load spoilt files; raise if anything is as it must not be."""
    done = {"refused": 0, "harmless": 0}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, f"run.{suffix}")
        # about 1 MB for single bits and cuts
        n = 8000 if kind != "fuzz" else 5
        opt, other = make(0, n), make(1, n)
        fastadam.save(path, opt, compression=kind == "fuzz")
        whole, saved, before = path.read_bytes(), bits(opt), bits(other)
        for i in range(first, last):
            path.write_bytes(spoil(whole, kind, np.random.default_rng([i, len(whole)])))
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                fastadam.load(path, other)
            except (CheckpointError, OSError):
                done["refused"] += 1
                assert bits(other) == before, f"case {i}: a refused file has changed something"
            else:
                done["harmless"] += 1
                assert bits(other) == saved, f"case {i}: what was loaded is not what was saved"
                other = make(1, n)
            finally:
                faulthandler.cancel_dump_traceback_later()
    return done


def run(kind: str, suffix: str, n: int, piece: int = 1000) -> dict[str, int]:
    """Attack in processes of bounded memory; a crash of one ends its piece."""
    done = {"refused": 0, "harmless": 0, "crashes": 0}
    for first in range(0, n, piece):
        last = min(first + piece, n)
        while first < last:
            argv = [sys.executable, __file__, "--attack", kind, suffix, str(first), str(last)]
            result = subprocess.run(argv, capture_output=True, text=True, preexec_fn=_bounded)
            counts = [*map(int, result.stdout.split())]
            if result.returncode == 0:
                done["refused"] += counts[0]
                done["harmless"] += counts[1]
                break
            if result.returncode > 0 or suffix == "npz":
                raise AssertionError(result.stderr[-3000:])
            # a signal: find out which case it was, and go on after it
            crash = _find_crash(kind, suffix, first, last)
            done["crashes"] += 1
            done["refused"] += crash - first
            print(f"{suffix} case {crash}: signal {-result.returncode}", flush=True)
            first = crash + 1
    return done


def _find_crash(kind: str, suffix: str, first: int, last: int) -> int:
    """Return the first case that ends a process."""
    while last - first > 1:
        middle = (first + last) // 2
        argv = [sys.executable, __file__, "--attack", kind, suffix, str(first), str(middle)]
        if subprocess.run(argv, capture_output=True, preexec_fn=_bounded).returncode:
            last = middle
        else:
            first = middle
    return first


def _bounded() -> None:
    # AddressSanitizer reserves terabytes of addresses, and takes little of them
    if os.environ.get("FASTADAM_TEST_INSTRUMENTED") != "1":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def interruptions(suffix: str, n: int) -> int:
    """Interrupt runs at random updates and resume them from files; return how many were equal."""
    makers = (fastadam.Adam, fastadam.AdamW, fastadam.AMSGrad, fastadam.AdaBound, fastadam.AMSBound)
    random = np.random.default_rng(n)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, f"run.{suffix}")
        for i in range(n):
            kind, updates = makers[i % len(makers)], int(random.integers(2, 12))
            np.random.seed(i)
            whole = start(kind, i)
            for _ in range(updates):
                advance(whole)
            np.random.seed(i)
            resumed = start(kind, i)
            for _ in range(updates):
                if random.random() < 0.4:
                    fastadam.save(path, resumed)
                    resumed = start(kind, i + 1)
                    np.random.seed(99)
                    fastadam.load(path, resumed)
                advance(resumed)
            assert state_of(whole) == state_of(resumed), f"run {i}"
    return n


def start(kind: Any, seed: int) -> Any:
    """An optimizer with masters, hooks and dynamic scaling."""
    random = np.random.default_rng(seed)
    params = {"W": random.normal(size=(5, 7)).astype(np.float16), "b": random.normal(size=3)}
    opt = kind(alpha=0.05).setup(params)
    opt.use_fp32_update()
    opt.loss_scaling(interval=2)
    opt.add_hook(fastadam.optimizer_hooks.GradientNoise(0.3))
    opt.add_hook(fastadam.optimizer_hooks.GradientClipping(1.5))
    return opt


def advance(opt: Any) -> None:
    """Make one update; every fifth has a gradient that is not finite."""
    import warnings

    random = np.random.default_rng([opt.t, 7])
    scale = opt.loss_scale
    grads = {
        key: (random.normal(size=param.shape) * scale).astype(param.array.dtype)
        for key, param in opt.parameters.items()
    }
    if opt.t % 5 == 4:
        grads["b"][1] = np.nan
    opt.hyperparam.alpha = 0.05 / (1 + opt.t)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opt.apply_gradients(grads, loss_scale=scale)


def state_of(opt: Any) -> list[Any]:
    """Everything, with masters and the generator."""
    found = [*bits(opt), opt._loss_scaling_isnan_ever, np.random.get_state()[1].tobytes()]
    for param in opt.parameters.values():
        master = param.update_rule._fp32_param
        found.append(None if master is None else master.array.tobytes())
    return found


def main(argv: list[str]) -> int:
    """Run a campaign, or one of its pieces."""
    if argv[0] == "--attack":
        done = attack(argv[1], argv[2], int(argv[3]), int(argv[4]))
        print(done["refused"], done["harmless"])
        return 0
    kind, suffix, n = argv[0], argv[1], int(argv[2])
    if kind == "interruptions":
        print(f"{suffix}: {interruptions(suffix, n)} resumed runs equal the uninterrupted ones")
    else:
        print(f"{kind} {suffix}: {run(kind, suffix, n)}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
