"""Who takes part in a comparison, on what, and who is left out and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from fastadam.bench import arrays, timing
from fastadam.bench.cases import Case
from fastadam.bench.contender import Contender, Differs, NotComparable, Unavailable, check
from fastadam.bench.floor import Floor
from fastadam.bench.libraries import (
    Chainer,
    DeepSpeed,
    Optax,
    TorchForeach,
    TorchFused,
    TorchSingle,
)
from fastadam.bench.own import FastadamArrays, FastadamLink, PlainNumpy
from fastadam.bench.settings import VARIANTS
from fastadam.cli.extras import MissingExtra
from fastadam.kernels.cpu.threads import set_num_threads

__all__ = ["CONTENDERS", "OURS", "LeftOut", "Roster"]

_ALL: tuple[type[Contender], ...] = (
    *(FastadamArrays, FastadamLink, PlainNumpy, TorchFused, TorchForeach, TorchSingle),
    *(Optax, DeepSpeed, Chainer),
)
CONTENDERS = {kind.name: kind for kind in _ALL}
OURS = ("fastadam", "fastadam-link")

# the latter three are the libraries' own refusals of a dtype
_REFUSALS: tuple[type[Exception], ...] = (
    *(NotComparable, Unavailable, ValueError, TypeError, RuntimeError),
)


class LeftOut(NamedTuple):
    """What was not measured, why, and where if not anywhere."""

    what: str
    why: str
    where: list[str]


class Roster:
    """Who takes part on the CPUs of this machine, with the checks made so far.

    Parameters
    ----------
    names : sequence of str
        Of `contenders`.

    Attributes
    ----------
    versions : dict of str to str
        Of the libraries that are here, by contender.
    left_out : list of LeftOut
        One for every contender and reason.
    here : list of type
        The contenders whose libraries are here.
    until : float
        After this time, of ``time.perf_counter``, no measurement begins.
    failed : list of str
        What has ended with one of `failures`, and who of `own` makes another step.
    """

    device: ClassVar[str] = "cpu"
    contenders: ClassVar[dict[str, type[Contender]]] = CONTENDERS
    # Its steps read and write what a step does, without the arithmetic; and who times steps.
    floor: ClassVar[type[Any]] = Floor
    block = staticmethod(timing.block)
    # Exceptions that end one measurement, and not the run.
    failures: ClassVar[tuple[type[Exception], ...]] = ()
    # Contenders that are fastadam: what they lack is left out, and what they do wrong has failed.
    own: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, names: Sequence[str]) -> None:
        self.versions: dict[str, str] = {}
        self.left_out: list[LeftOut] = []
        self.here: list[type[Contender]] = []
        self.until = math.inf
        self.failed: list[str] = []
        self._checked: dict[tuple[str, str, str], float | None] = {}
        for name in names:
            kind = self.contenders[name]
            try:
                version = kind.version()
            except Unavailable as error:
                self.leave_out(name, str(error))
                continue
            self.here.append(kind)
            if version is not None:
                self.versions[name] = version

    def place(self, n_threads: int) -> str:
        """Say where steps are made."""
        return f"{n_threads} thread(s)"

    def free_bytes(self) -> int | None:
        """Return how much memory is free."""
        return arrays.free_bytes()

    def needed_bytes(self, case: Case, dtype: str | None, variant: str, contenders: int) -> int:
        """Return about how much memory a comparison takes."""
        stored, state = arrays.state_bytes(case, dtype, VARIANTS[variant])
        # the floor's arrays too, the gradients, JAX's copies of these, and temporary arrays
        return (contenders + 1) * (stored + state) + 5 * stored

    def release(self) -> None:
        """Give back memory that libraries keep, after a comparison."""

    def leave_out(self, what: str, why: str, where: str | None = None) -> None:
        """Note what is not measured, and in which of the measurements."""
        known = next((one for one in self.left_out if one[:2] == (what, why)), None)
        if known is None:
            known = LeftOut(what, why, [])
            self.left_out.append(known)
        if where is not None and where not in known.where:
            known.where.append(where)

    def fail(self, what: str, why: str, where: str) -> None:
        """Note a measurement that could not be made, or a step of fastadam's that is wrong."""
        self.failed.append(f"{what}: {where}")
        self.leave_out(what, f"it failed: {why}", where)

    def difference(self, name: str, variant: str, dtypes: Sequence[str]) -> float | None:
        """Return the largest difference that the checks have found; None before any."""
        found = [self._checked.get((name, variant, dtype)) for dtype in dtypes]
        return max((each for each in found if each is not None), default=None)

    def ready(self, variant: str, dtypes: Sequence[str], n_threads: int) -> list[type[Contender]]:
        """Set the threads of all, and return those that make this step, and make it right."""
        set_num_threads(n_threads)
        able = []
        for kind in self.here:
            try:
                kind.set_threads(n_threads)
                good = [self._passes(kind, variant, dtype) for dtype in dtypes]
            except NotComparable as reason:
                self.leave_out(kind.name, str(reason), self.place(n_threads))
            except MissingExtra as missing:
                self.leave_out(kind.name, str(missing))
            else:
                able += [kind] if all(good) else []
        return able

    def check(self, kind: type[Contender], variant: str, dtype: str) -> float:
        """Compare a contender's steps with fastadam's, as ``contender.check`` does."""
        return check(kind, VARIANTS[variant], dtype)

    def _passes(self, kind: type[Contender], variant: str, dtype: str) -> bool:
        """Check a contender once for a variant and a dtype."""
        key = (kind.name, variant, dtype)
        if key not in self._checked:
            self._checked[key] = None
            try:
                self._checked[key] = self.check(kind, variant, dtype)
            except _REFUSALS + self.failures as reason:
                why = str(reason).partition("\n")[0]
                lacks = isinstance(reason, (NotComparable, Unavailable))
                if kind.name in self.own and (isinstance(reason, Differs) or not lacks):
                    self.fail(kind.name, why, f"{variant} {dtype}")
                else:
                    self.leave_out(kind.name, why, f"{variant} {dtype}")
        return self._checked[key] is not None
