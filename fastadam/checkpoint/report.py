"""What a load has done."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["LoadReport"]


_NAMES = ("missing", "ignored", "left", "converted", "hooks_missing", "hooks_added")


@dataclass(frozen=True, repr=False)
class LoadReport:
    """What `fastadam.load` has read, and what it has left.

    Parameters
    ----------
    read : tuple of str
        Keys in the file that have been loaded.
    missing : tuple of str
        Keys that were looked for and are not in the file; what they stand for stayed as it was.
    ignored : tuple of str
        Keys that `ignore_names` has left.
    left : tuple of str
        Keys in the file that nothing was looked for under.
    converted : tuple of str
        Keys that were made of others: between Adam and AMSGrad, wide parameters of the float32
        masters that float16 ones had, and masters on PyTorch's tensors that begin from the
        parameters. A cast from one dtype to another is not named.
    verified : bool
        Whether the file has a list of its contents, and all that was read is as it says.
    versions : dict of str to str
        With which versions it was saved; empty for files of others.
    hooks_missing : tuple of str
        Names of hooks that it was saved with and that are not here: ``'GradientClipping'``, or
        ``'l1/W: GradientClipping'`` for one of a single parameter.
    hooks_added : tuple of str
        Names of hooks that are here and that it was not saved with.

    Examples
    --------
    >>> from fastadam import LoadReport
    >>> print(LoadReport(read=('optimizer/t', 'target/w'), left=('target/old',), verified=True))
    read: 2 entries, verified
    left: target/old
    """

    read: tuple[str, ...]
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    verified: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    hooks_missing: tuple[str, ...] = ()
    hooks_added: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = f"{len(self.read)} entries read, {'' if self.verified else 'not '}verified"
        others = ", ".join(f"{len(keys)} {name}" for name, keys in self._others().items())
        return f"<{type(self).__name__}: {found}{'; ' if others else ''}{others}>"

    def __str__(self) -> str:
        lines = [f"read: {len(self.read)} entries, {'' if self.verified else 'not '}verified"]
        lines += [f"{name}: {', '.join(keys)}" for name, keys in self._others().items()]
        return "\n".join(lines)

    def _others(self) -> dict[str, tuple[str, ...]]:
        """Return the keys that were not just read, by what became of them."""
        found = {name.replace("_", " "): getattr(self, name) for name in _NAMES}
        return {name: keys for name, keys in found.items() if keys}
