"""The contenders by name, which of them are here, and those that take part in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastadam.bench.contender import Contender, NotComparable, Unavailable, check
from fastadam.bench.device import Cpu
from fastadam.bench.settings import VARIANTS
from fastadam.cli.extras import MissingExtra

__all__ = ["CONTENDERS", "OURS", "LeftOut", "Roster"]

CONTENDERS = Cpu.contenders
OURS = ("fastadam", "fastadam-link")


class LeftOut(NamedTuple):
    """What was not measured, why, and where if not anywhere."""

    what: str
    why: str
    where: list[str]


class Roster:
    """Who takes part, with the checks made so far.

    Parameters
    ----------
    names : sequence of str
        Of the device's contenders.
    device : Cpu, optional
        Where they are; whatever has the same methods.

    Attributes
    ----------
    device : Cpu
        Where they are.
    versions : dict of str to str
        Of the libraries that are here, by contender.
    left_out : list of LeftOut
        One for every contender and reason.
    """

    def __init__(self, names: Sequence[str], device: Cpu | None = None) -> None:
        self.device = device or Cpu()
        self.versions: dict[str, str] = {}
        self.left_out: list[LeftOut] = []
        self._here: list[type[Contender]] = []
        self._checked: dict[tuple[str, str, str], float | None] = {}
        for name in names:
            kind = self.device.contenders[name]
            try:
                version = kind.version()
            except Unavailable as error:
                self.leave_out(name, str(error))
                continue
            self._here.append(kind)
            if version is not None:
                self.versions[name] = version

    def leave_out(self, what: str, why: str, where: str | None = None) -> None:
        """Note what is not measured, and in which of the measurements."""
        for known in self.left_out:
            if known[:2] == (what, why):
                break
        else:
            known = LeftOut(what, why, [])
            self.left_out.append(known)
        if where is not None and where not in known.where:
            known.where.append(where)

    def difference(self, name: str, variant: str, dtypes: Sequence[str]) -> float | None:
        """Return the largest difference that the checks have found; None before any."""
        found = [self._checked.get((name, variant, dtype)) for dtype in dtypes]
        known = [difference for difference in found if difference is not None]
        return max(known, default=None)

    def ready(self, variant: str, dtypes: Sequence[str], n_threads: int) -> list[type[Contender]]:
        """Set the threads of all, and return those that make this step, and make it right."""
        able = []
        for kind in self._here:
            try:
                kind.set_threads(n_threads)
                good = [self._passes(kind, variant, dtype) for dtype in dtypes]
            except NotComparable as reason:
                self.leave_out(kind.name, str(reason), f"{n_threads} thread(s)")
                continue
            except MissingExtra as missing:
                self.leave_out(kind.name, str(missing))
                continue
            if all(good):
                able.append(kind)
        return able

    def _passes(self, kind: type[Contender], variant: str, dtype: str) -> bool:
        """Check a contender once for a variant and a dtype."""
        key = (kind.name, variant, dtype)
        if key not in self._checked:
            self._checked[key] = None
            try:
                self._checked[key] = check(kind, VARIANTS[variant], dtype)
            except (NotComparable, Unavailable, ValueError, TypeError, RuntimeError) as reason:
                # the latter three are the libraries' own refusals of a dtype
                why = str(reason).partition("\n")[0]
                self.leave_out(kind.name, why, f"{variant} {dtype}")
        return self._checked[key] is not None
