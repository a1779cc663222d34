"""`fastadam.load`: everything is read and checked before the first value is changed."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastadam.algorithms.table import CONVERTED
from fastadam.checkpoint.arguments import check_arguments
from fastadam.checkpoint.contents import GROUP, HOOK, HYPERPARAM, OPTIMIZER, OURS, RULE, TARGET
from fastadam.checkpoint.kinds import Checkpointed, checkpointed
from fastadam.checkpoint.report import LoadReport
from fastadam.checkpoint.source import Source
from fastadam.files.errors import CheckpointError
from fastadam.files.formats import format_of
from fastadam.serializers._templates import IgnoreNames
from fastadam.update.exclusive import LOAD, while_whole

__all__ = ["load"]

# How the keys end of what is made when a state becomes AMSGrad's, and dropped when it is no longer.
_CONVERTED = tuple(f"/{stream.name}" for stream in CONVERTED)


@while_whole(LOAD, "optimizer")
def load(
    path: str | os.PathLike[str],
    optimizer: Any,
    *,
    parameters: bool = True,
    hyperparam: bool = True,
    strict: bool = True,
    ignore_names: IgnoreNames = None,
    rename: Mapping[str, str] | Callable[[str], str] | None = None,
    convert_amsgrad: bool = False,
) -> LoadReport:
    """Load what `save` has saved, or nothing.

    All is read, compared with the digests and checked before the first value is changed. Nothing
    in a file is ever unpickled, and no memory is taken for what does not fit.

    Parameters
    ----------
    path : str or os.PathLike
        The file, of `save`, or of an optimizer alone: of Chainer, `save_npz` or `save_hdf5`.
    optimizer : GradientMethod or torch.optim.Optimizer
        An optimizer of the same class that is set up with the same parameters; these may be
        uninitialised. Or one of `fastadam.torch` with the same groups of parameters.
    parameters : bool
        Whether the parameters are loaded, too. A file of an optimizer alone has none.
    hyperparam : bool
        Whether hyperparameters are loaded, those of single parameters, or of groups, and which
        rules are enabled with them.
    strict : bool
        Whether a value that is missing in the file, or in the target, is an error. If not, it is
        left, and the report says so.
    ignore_names : str, callable, or list or tuple of them, optional
        Keys that stay as they are, such as ``'fastadam/hyperparam/alpha'``: full keys, or functions
        that take one and tell.
    rename : mapping of str to str, or callable, optional
        Parameters, or links above them, that have another name than in the file:
        ``{name in the file: name in the target}``. Or a function from the one to the other, which
        is called with the name of each parameter in the file, and of each buffer of a module:
        ``lambda name: name.replace('_orig_mod.', '')`` takes those of ``torch.compile(model)``.
    convert_amsgrad : bool
        Whether a state without ``vhat`` may be loaded into AMSGrad, where ``vhat`` then begins with
        ``v``, and one with ``vhat`` into Adam, which drops it. PyTorch calls the two
        ``max_exp_avg_sq`` and ``exp_avg_sq``.

    Returns
    -------
    LoadReport
        What has been read, and what not.

    Warns
    -----
    UserWarning
        If the hooks are not those that it was saved with.

    Raises
    ------
    CheckpointError
        If the file is damaged, or does not fit; it is a ValueError. Nothing has changed.
    ValueError
        If the suffix is unknown.
    TypeError
        If an argument is of another type than it may have.
    RuntimeError
        If the optimizer is not set up, or h5py is needed and not installed; if an update is
        half-way, in another thread or in this one.
    OSError
        If the file cannot be read.

    See Also
    --------
    save : Save it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam(alpha=0.1).setup({'w': np.ones(3)})
    >>> other = fastadam.Adam().setup({'weight': np.zeros(3)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, 'run.npz')
    ...     fastadam.save(path, opt)
    ...     report = fastadam.load(path, other, rename={'w': 'weight'})
    >>> other.alpha, 'target/w' in report.read
    (0.1, True)
    """
    choices = {"parameters": parameters, "hyperparam": hyperparam, "strict": strict}
    check_arguments(path, optimizer, **choices, convert_amsgrad=convert_amsgrad)
    kind = format_of(path)
    own = checkpointed(optimizer)
    values = own.values()
    with kind.opened(path) as reader:
        room, wide = own.room(values), own.wide()
        source = Source(reader, room, rename or {}, ignore_names, convert_amsgrad, wide)
        if isinstance(rename, Mapping):
            _check_rename(rename, own, values)
        if source.plain and parameters:
            raise CheckpointError(
                f"{source.where} holds an optimizer's state alone, without parameters: load these "
                "first, from their own file, and then this with parameters=False"
            )
        try:
            held = values if parameters else {}
            prepared, *hooks = own.prepare(source, held, hyperparam, strict)
        except CheckpointError:
            raise
        except KeyError as error:
            raise CheckpointError(str(error.args[0])) from error
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{source.where} does not fit: {error}") from error
        left = source.left(own.aliases)
        source.check_ignored()
        if strict:
            _refuse_left(source, left, parameters, hyperparam, own.uninitialised())
    report = LoadReport(
        read=tuple(source.read),
        missing=() if strict else tuple(source.missing),
        ignored=tuple(source.ignored),
        left=tuple(left),
        converted=tuple(source.converted),
        verified=source.manifest is not None,
        versions=source.manifest.versions if source.manifest else {},
        hooks_missing=hooks[0],
        hooks_added=hooks[1],
    )
    _warn_of_hooks(source.where, report)
    prepared.commit()
    return report


def _check_rename(rename: Mapping[str, str], own: Checkpointed, values: Mapping[str, Any]) -> None:
    """Refuse names that nothing in the target has."""
    known: set[str] = set()
    for path in (*own.names(), *(k.removeprefix(TARGET) for k in values)):
        while path and path not in known:
            known.add(path)
            path = path.rpartition("/")[0]
    for old, new in rename.items():
        if new.strip("/") not in known:
            close = difflib.get_close_matches(new, known, 1, 0.3)
            hint = f"; is {close[0]!r} meant?" if close else ""
            raise CheckpointError(
                f"rename: {old!r} is to become {new!r}, and there is no {new!r} in the target{hint}"
            )


def _warn_of_hooks(where: str, report: LoadReport) -> None:
    """Say that the run will not be the one that was saved."""
    parts = []
    if report.hooks_missing:
        names = ", ".join(report.hooks_missing)
        parts.append(f"was saved with hooks that are not here: {names} (add them before you load)")
    if report.hooks_added:
        parts.append(f"was saved without hooks that are here: {', '.join(report.hooks_added)}")
    if parts:
        warnings.warn(
            f"{where} {', and '.join(parts)}. Hooks are not loaded, only their states: what "
            "goes on is another run",
            UserWarning,
            stacklevel=6,
        )


def _refuse_left(
    source: Source,
    left: list[str],
    parameters: bool,
    hyperparam: bool,
    uninitialised: Iterable[str],
) -> None:
    """Refuse values without a place; states of hooks that are not here are reported instead."""
    read = (OPTIMIZER, OURS, TARGET) if parameters else (OPTIMIZER, OURS)
    unread = () if hyperparam else (HYPERPARAM, RULE, GROUP)
    lost = [
        key
        for key in left
        if (source.plain or key.startswith(read))
        and not (source.converts and key.endswith(_CONVERTED))
        and not key.startswith((HOOK, *unread))
        and not (key.startswith(RULE) and "/hook/" in key)
    ]
    if not lost:
        return
    later = [
        path
        for path in uninitialised
        if TARGET + path in lost or any(key.startswith(f"{OPTIMIZER}{path}/") for key in lost)
    ]
    if later:
        raise CheckpointError(
            f"{source.where} holds values that have no place yet: "
            f"{', '.join(map(repr, later))} are uninitialised here: call the module once, and load "
            "then (strict=False leaves the values)"
        )
    names = ", ".join(map(repr, lost[:5])) + (", ..." if len(lost) > 5 else "")
    hint = "strict=False leaves them, `rename` gives them another name"
    if all(key.endswith(_CONVERTED) for key in lost):
        hint = "it was saved with AMSGrad; convert_amsgrad=True drops them"
    raise CheckpointError(
        f"{source.where} holds what this optimizer has no place for: {names}; {hint}"
    )
