"""`fastadam.load`: everything is read and checked before the first value is changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fastadam.checkpoint.contents import (
    OPTIMIZER,
    TARGET,
    check_optimizer,
    target_values,
)
from fastadam.checkpoint.entries import is_none
from fastadam.checkpoint.errors import CheckpointError
from fastadam.checkpoint.formats import format_of
from fastadam.checkpoint.optimizer_reading import read_optimizer
from fastadam.checkpoint.report import LoadReport
from fastadam.checkpoint.source import Source
from fastadam.exclusive import LOAD, while_whole
from fastadam.serializers._templates import IgnoreNames

__all__ = ["load"]


@while_whole(LOAD, "optimizer")
def load(
    path: str | os.PathLike[str],
    optimizer: Any,
    *,
    parameters: bool = True,
    hyperparam: bool = True,
    strict: bool = True,
    ignore_names: IgnoreNames = None,
    rename: Mapping[str, str] | None = None,
    convert_amsgrad: bool = False,
) -> LoadReport:
    """Load what `save` has saved, or nothing.

    All is read, compared with the digests and checked before the first value is changed. Nothing
    in a file is ever unpickled, and no memory is taken for what does not fit.

    Parameters
    ----------
    path : str or os.PathLike
        The file, of `save`, or of an optimizer alone: of Chainer, `save_npz` or `save_hdf5`.
    optimizer : GradientMethod
        An optimizer of the same class that is set up with the same parameters; these may be
        uninitialised.
    parameters : bool
        Whether the parameters are loaded, too. A file of an optimizer alone has none.
    hyperparam : bool
        Whether hyperparameters are loaded, those of single parameters and which rules are enabled
        with them.
    strict : bool
        Whether a value that is missing in the file, or in the target, is an error. If not, it is
        left, and the report says so.
    ignore_names : str, callable, or list or tuple of them, optional
        Keys that stay as they are, such as ``'fastadam/hyperparam/alpha'``: full keys, or functions
        that take one and tell.
    rename : mapping of str to str, optional
        Parameters, or links above them, that have another name than in the file:
        ``{name in the file: name in the target}``.
    convert_amsgrad : bool
        Whether a state without ``vhat`` may be loaded into AMSGrad, where ``vhat`` then begins with
        ``v``, and one with ``vhat`` into Adam, which drops it.

    Returns
    -------
    LoadReport
        What has been read, and what not.

    Raises
    ------
    CheckpointError
        If the file is damaged, or does not fit; it is a ValueError. Nothing has changed.
    ValueError
        If the suffix is unknown.
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
    kind = format_of(path)
    check_optimizer(optimizer)
    optimizer._refresh()
    targets = optimizer._set_up()
    values = target_values(targets)
    with kind.opened(path) as reader:
        source = Source(reader, _room(targets, values), rename or {}, ignore_names, convert_amsgrad)
        if source.plain and parameters:
            raise CheckpointError(
                f"{source.where} holds an optimizer's state alone, without parameters: load these "
                "first, from their own file, and then this with parameters=False"
            )
        try:
            commits = read_optimizer(
                source, optimizer, values if parameters else {}, hyperparam, strict
            )
        except CheckpointError:
            raise
        except KeyError as error:
            raise CheckpointError(str(error.args[0])) from error
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{source.where} does not fit: {error}") from error
        left = source.left(targets.aliases)
        source.check_ignored()
        if strict:
            _refuse_left(source, left, parameters, convert_amsgrad)
        for commit in commits:
            commit()
    return LoadReport(
        read=tuple(source.read),
        missing=() if strict else source.lost(),
        ignored=tuple(source.ignored),
        left=tuple(left),
        converted=tuple(source.converted),
        verified=source.manifest is not None,
        versions=source.manifest.versions if source.manifest else {},
    )


def _room(targets: Any, values: Mapping[str, Any]) -> dict[str, int | None]:
    """Return how many bytes each array may take: no more than it has, or float64 would take."""
    room: dict[str, int | None] = {}
    for key, value in values.items():
        room[key.removeprefix(TARGET)] = None if is_none(value) else int(value.nbytes)
    for path, param in targets.parameters.items():
        room[path] = None if param.array is None else 8 * int(param.array.size)
    return room


def _refuse_left(source: Source, left: list[str], parameters: bool, convert_amsgrad: bool) -> None:
    """Refuse states and parameters of which there are none in the target."""
    sections = (OPTIMIZER, TARGET) if parameters else (OPTIMIZER,)
    lost = [
        key
        for key in left
        if (source.plain or key.startswith(sections))
        and not (convert_amsgrad and key.endswith("/vhat"))
    ]
    if not lost:
        return
    names = ", ".join(map(repr, lost[:5])) + (", ..." if len(lost) > 5 else "")
    hint = "strict=False leaves them, `rename` gives them another name"
    if all(key.endswith("/vhat") for key in lost):
        hint = "it was saved with AMSGrad; convert_amsgrad=True drops them"
    raise CheckpointError(
        f"{source.where} holds what this optimizer has no place for: {names}; {hint}"
    )
