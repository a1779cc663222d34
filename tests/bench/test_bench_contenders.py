"""Contenders step as fastadam does, and who does not is not timed."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import numpy as np
import pytest

from fastadam.bench import arrays, contender, own, peers, ratios, settings
from fastadam.bench.cases import Case, Tensor
from fastadam.bench.libraries import Chainer, DeepSpeed, Optax, TorchFused
from fastadam.bench.peers import CONTENDERS, Roster
from fastadam.bench.settings import VARIANTS, Variant
from fastadam.bench.timing import Plan
from fastadam.kernels.cpu.threads import get_num_threads, set_num_threads

SHORT = Plan(rounds=2, block_s=0.0, settle_s=0.0)
NEEDS = {
    "torch-fused": "torch",
    "torch-foreach": "torch",
    "torch-single": "torch",
    "optax": "optax",
    "chainer": "chainer",
}


@pytest.fixture(autouse=True)
def _threads_put_back() -> Any:
    """Contenders set the threads of the process."""
    yield
    set_num_threads(None)


def available(name: str) -> type[contender.Contender]:
    """The contender of a name, or skip."""
    if name == "deepspeed":
        pytest.skip("compiles for half a minute; the command checks it whenever it is timed")
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}")
    return CONTENDERS[name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders_agree_with_fastadam(name: str, variant: str, dtype: str) -> None:
    kind = available(name)
    lacks = VARIANTS[variant].adabound and name not in (*peers.OURS, "numpy", "chainer")
    if lacks or (name, variant) == ("optax", "amsgrad"):
        # which is said in words
        with pytest.raises(contender.NotComparable, match=r"^it"):
            contender.check(kind, VARIANTS[variant], dtype)
        return
    difference = contender.check(kind, VARIANTS[variant], dtype)
    assert difference < (1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["fastadam", "fastadam-link", "numpy", "torch-fused"])
def test_half_types_agree_roughly(name: str, dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="needs ml_dtypes")
    assert contender.check(available(name), VARIANTS["adamw"], dtype) < 0.1


class Idle(own.FastadamArrays):
    """Does nothing."""

    name: ClassVar[str] = "idle"

    def step(self) -> None:
        pass


class Wrong(own.FastadamArrays):
    """Takes a learning rate that is a tenth too large."""

    name: ClassVar[str] = "wrong"

    def __init__(self, variant: Variant, params: list[Any]) -> None:
        super().__init__(variant, params)
        self.optimizer.alpha = 1.1 * settings.ALPHA


class Broken(own.FastadamArrays):
    """Turns everything into NaN."""

    name: ClassVar[str] = "broken"

    def step(self) -> None:
        for p in self.values():
            p.fill(np.nan)


class Refusing(own.FastadamArrays):
    """Knows no float64."""

    name: ClassVar[str] = "refusing"

    def __init__(self, variant: Variant, params: list[Any]) -> None:
        if params[0].dtype == np.float64:
            raise TypeError("no float64\nhere")
        super().__init__(variant, params)


@pytest.mark.parametrize("kind", [Idle, Wrong, Broken])
@pytest.mark.parametrize("variant", ["adam", "adamw", "amsgrad"])
def test_a_contender_that_does_something_else_is_caught(kind: Any, variant: str) -> None:
    for dtype in ("float32", "float64"):
        with pytest.raises(contender.NotComparable, match="of their way from fastadam's"):
            contender.check(kind, VARIANTS[variant], dtype)


def test_a_contender_without_the_weight_decay_is_caught() -> None:
    undecayed = VARIANTS["adamw"]._replace(decay=False)

    class Undecayed(own.FastadamArrays):
        def __init__(self, variant: Variant, params: list[Any]) -> None:
            super().__init__(undecayed, params)

    with pytest.raises(contender.NotComparable):
        contender.check(Undecayed, VARIANTS["adamw"], "float32")


def test_the_roster_leaves_out_who_fails_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Idle, Refusing):
        monkeypatch.setitem(CONTENDERS, kind.name, kind)
    roster = Roster(["fastadam", "idle", "refusing"])
    for _ in range(2):
        assert roster.ready("adamw", ["float32"], 1) == [own.FastadamArrays, Refusing]
    assert roster.ready("adamw", ["float32", "float64"], 1) == [own.FastadamArrays]
    assert roster.difference("refusing", "adamw", ["float32"]) == 0.0
    assert roster.difference("idle", "adamw", ["float32"]) is None
    idle, *rest = roster.left_out
    assert idle.what == "idle"
    assert "of their way" in idle.why
    assert ("refusing", "no float64", ["adamw float64"]) in rest


@pytest.mark.parametrize("kind", [TorchFused, Optax, DeepSpeed, Chainer])
def test_who_is_not_installed_is_named_with_how_to_get_it(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch", "optax", "jax", "deepspeed", "deepspeed.ops.adam", "chainer"):
        monkeypatch.setitem(sys.modules, module, None)
    roster = Roster([kind.name])
    ((what, why, where),) = roster.left_out
    assert what == kind.name
    assert why.startswith("not installed: pip install ")
    assert where == []
    assert roster.ready("adam", ["float32"], 1) == []


def test_a_library_that_fails_at_import_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise AttributeError("module 'numpy' has no attribute 'bool'")

    monkeypatch.setattr("fastadam.bench.contender.importlib.import_module", fail)
    with pytest.raises(contender.Unavailable, match="cannot be imported: AttributeError"):
        Chainer.version()


def test_threads_are_set() -> None:
    Roster(["fastadam", "fastadam-link", "numpy"]).ready("adam", ["float32"], 3)
    assert get_num_threads() == 3


def test_a_case_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("small", (Tensor("a", (3, 4)), Tensor("b", (5,))), fresh=True)
    roster = Roster(["fastadam", "fastadam-link", "numpy"])
    row = ratios.compare(roster, case, "amsbound", "float32", 1, SHORT)
    assert row is not None
    assert list(row["times_us"]) == ["floor", "fastadam", "fastadam-link", "numpy"]
    assert row["gradients"] == "fresh"
    assert (row["tensors"], row["elements"]) == (2, 17)
    assert row["bytes_moved"] == 17 * 36
    assert row["difference"].keys() == {"numpy"}
    assert all(len(times["rounds"]) == 2 for times in row["times_us"].values())
    assert roster.left_out == []
    # and not where there is no memory for it
    monkeypatch.setattr(arrays, "free_bytes", lambda: 1000)
    assert ratios.compare(roster, case, "amsbound", "float32", 1, SHORT) is None
    (left_out,) = roster.left_out
    assert left_out.what == "small, amsbound float32, 1 thread(s)"
    assert "GB of memory" in left_out.why


def test_fresh_gradients_are_new_arrays_with_the_same_numbers() -> None:
    given: list[list[Any]] = []

    class Seen(own.FastadamArrays):
        def give(self, grads: list[Any]) -> None:
            given.append(grads)
            super().give(grads)

    grads = [np.ones(3, np.float32)]
    subject = ratios.subject(Seen(VARIANTS["adam"], [np.ones(3, np.float32)]), grads, fresh=True)
    assert subject.before is not None
    subject.before()
    subject.before()
    assert given[0][0] is grads[0]
    assert given[1][0] is not given[2][0]
    assert not np.shares_memory(given[1][0], grads[0])
    np.testing.assert_array_equal(given[2][0], grads[0])
    assert ratios.subject(Seen(VARIANTS["adam"], grads), grads, fresh=False).before is None


def test_every_contender_has_a_name_and_the_first_is_ours() -> None:
    assert all(kind.name == name for name, kind in CONTENDERS.items())
    assert tuple(CONTENDERS)[: len(peers.OURS)] == peers.OURS
