"""`fastadam.load`: everything is read and checked before the first value is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from fastadam.checkpoint.contents import (
    HYPERPARAM,
    OPTIMIZER,
    RULE,
    SETTINGS,
    TARGET,
    own_hooks,
    target_values,
)
from fastadam.checkpoint.entries import is_none
from fastadam.checkpoint.errors import CheckpointError
from fastadam.checkpoint.formats import format_of
from fastadam.checkpoint.report import LoadReport
from fastadam.checkpoint.source import Source, SourceDeserializer
from fastadam.checkpoint.target_reading import read_target
from fastadam.serializers._templates import IgnoreNames
from fastadam.serializers.npz import NpzDeserializer

__all__ = ["load"]

Commit = Callable[[], object]

# Hyperparameters that say which of the family it is.
_VARIANT = ("amsgrad", "adabound")


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
        If the optimizer is not set up, or h5py is needed and not installed.
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
            commits = _read(source, optimizer, values if parameters else {}, hyperparam, strict)
        except CheckpointError:
            raise
        except KeyError as error:
            raise CheckpointError(str(error.args[0])) from error
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{source.where} does not fit: {error}") from error
        left = source.left(targets.aliases)
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


def _read(
    source: Source, opt: Any, values: Mapping[str, Any], hyperparam: bool, strict: bool
) -> list[Commit]:
    """Read and check everything; return what makes it the optimizer's own, in order."""
    commits: list[Commit] = []
    if not source.plain:
        if hyperparam:
            _check_variant(source, opt)
        commits += _read_hooks(source, opt)
        commits += _read_settings(source, opt)
        if hyperparam:
            commits += _read_bag(source, HYPERPARAM, opt.hyperparam, opt._check_hyperparam)
            commits += _read_rules(source, opt)
    if values:
        deserializer = SourceDeserializer(source, TARGET, strict)
        commits += read_target(deserializer, opt._set_up(), values)
    deserializer = SourceDeserializer(source, OPTIMIZER, strict)
    if type(opt).serialize.__module__.startswith("fastadam."):
        commits += opt._read(deserializer)
        return commits + _read_first_alphas(source, opt)
    # somebody's own way of loading cannot be cut into reading and writing
    return [*commits, partial(opt.serialize, deserializer)]


def _check_variant(source: Source, opt: Any) -> None:
    """Refuse the state of another of the family."""
    mine = opt.hyperparam.get_dict()
    for name in _VARIANT:
        key = HYPERPARAM + name
        if name not in mine or key not in source or source.is_ignored(key):
            continue
        theirs = bool(source.value(key)[()])
        if theirs == bool(mine[name]) or (name == "amsgrad" and source.converts):
            continue
        advice = "make the optimizer with the same"
        if name == "amsgrad":
            advice += ", or pass convert_amsgrad=True: " + (
                "vhat is dropped then" if theirs else "vhat begins with v then"
            )
        raise CheckpointError(
            f"{source.where} was saved with {name}={theirs}, and this {type(opt).__name__} has "
            f"{name}={bool(mine[name])}: {advice}"
        )


def _read_settings(source: Source, opt: Any) -> list[Commit]:
    """Read what is neither a count nor a hyperparameter."""
    commits: list[Commit] = []
    for key, (name, kind) in SETTINGS.items():
        if key in source and not source.is_ignored(key):
            value = kind(source.value(key)[()])
            commits.append(partial(setattr, opt, name, value))
    return commits


def _read_bag(
    source: Source, prefix: str, bag: Any, check: Callable[[str, Any], None]
) -> list[Commit]:
    """Read a bag of hyperparameters: afterwards it holds what it held when it was saved."""
    stored = {
        key.removeprefix(prefix): key
        for key in sorted(source.keys_under(prefix))
        if not source.is_ignored(key)
    }
    commits: list[Commit] = []
    for name, key in stored.items():
        if name in _VARIANT and source.converts:
            continue
        value = _plain(source.value(key))
        check(name, value)
        commits.append(partial(setattr, bag, name, value))
    if bag.parent is not None:
        for name in set(vars(bag)) - set(stored):
            commits.append(partial(delattr, bag, name))
    return commits


def _read_rules(source: Source, opt: Any) -> list[Commit]:
    """Read the hyperparameters and flags of single parameters."""
    commits: list[Commit] = []
    for path, param in opt._set_up().parameters.items():
        rule = getattr(param, "update_rule", None)
        enabled, fp32 = f"{RULE}{path}/enabled", f"{RULE}{path}/use_fp32_update"
        if rule is None or enabled not in source:
            continue
        commits += _read_bag(
            source, f"{RULE}{path}/hyperparam/", rule.hyperparam, opt._check_hyperparam
        )
        if not source.is_ignored(enabled):
            commits.append(partial(setattr, rule, "enabled", bool(source.value(enabled)[()])))
        if fp32 in source and not source.is_ignored(fp32):
            commits.append(partial(rule.use_fp32_update, bool(source.value(fp32)[()])))
    return commits


def _read_first_alphas(source: Source, opt: Any) -> list[Commit]:
    """Read the alpha against which AdaBound's bounds are measured."""
    commits: list[Commit] = []
    for path, param in opt._set_up().parameters.items():
        key = f"{RULE}{path}/initial_alpha"
        if key in source and not source.is_ignored(key):
            value = float(source.value(key)[()])
            commits.append(partial(setattr, param.update_rule, "initial_alpha", value))
    return commits


def _read_hooks(source: Source, opt: Any) -> list[Commit]:
    """Read the states of hooks that are there, and were when it was saved."""
    commits: list[Commit] = []
    for prefix, hook in own_hooks(opt):
        stored = {
            key: source.value(key)
            for key in sorted(source.keys_under(prefix))
            if not source.is_ignored(key)
        }
        if stored:
            commits.append(partial(hook.serialize, NpzDeserializer(stored, prefix)))
    return commits


def _plain(value: Any) -> Any:
    """Return a stored number, truth value or string as Python's."""
    if value.dtype == object:
        return None
    return value.item() if value.shape == () else np.array(value)


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
