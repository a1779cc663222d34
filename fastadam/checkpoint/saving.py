"""`fastadam.save`: everything that it takes to go on, in one file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastadam._version import __version__
from fastadam.checkpoint.arguments import check_arguments
from fastadam.checkpoint.kinds import checkpointed
from fastadam.files.entries import describe_all
from fastadam.files.formats import format_of
from fastadam.files.manifest import KEY, Manifest, pack
from fastadam.serializers.dictionary import storable_values
from fastadam.update.exclusive import LOOK, while_whole

__all__ = ["save"]


@while_whole(LOOK, "optimizer")
def save(
    path: str | os.PathLike[str],
    optimizer: Any,
    *,
    parameters: bool = True,
    compression: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Save an optimizer with its parameters, so that a run can go on as if it had not stopped.

    The file holds the parameters, the states of all rules, float32 masters, counts,
    hyperparameters and those of single parameters, which rules are enabled, the state of loss
    scaling, and that of hooks with a ``serialize`` method; and a list of all of it with digests,
    by which `load` tells damage. It is written atomically and durably: its name holds the whole
    old or the whole new content, whatever happens.

    Parameters
    ----------
    path : str or os.PathLike
        The file; its suffix says the kind: ``.npz``, or ``.h5`` and ``.hdf5``, which need h5py.
    optimizer : GradientMethod or torch.optim.Optimizer
        An optimizer that is set up; or one of `fastadam.torch`, whose states, groups and parameters
        are saved under the names in ``param_names``, or else under their numbers.
    parameters : bool
        Whether the parameters are saved, too.
    compression : bool
        Whether to compress. Weights hardly get smaller.
    progress : callable, optional
        Called with the bytes written so far and those of all.

    Raises
    ------
    ValueError
        If the suffix is unknown, a name cannot be one in such a file, or a count is none.
    TypeError
        If `optimizer` is none, or if a hyperparameter or persistent value can only be pickled.
    RuntimeError
        If the optimizer is not set up, or h5py is needed and not installed; if an update is
        half-way, in another thread or where a signal handler has interrupted it, or begun by
        `progress`; or if something has changed while it was saved. The old file is still there.
    OSError
        If the file cannot be written; the old one is still there.

    See Also
    --------
    load : Load it again.
    serializers.save_npz, serializers.save_hdf5 : Save what Chainer saves.

    Notes
    -----
    Under ``optimizer/`` the file has the layout of Chainer's optimizers, and under ``target/``
    that of its links, so that ``load_npz(path, opt, path='optimizer/')`` reads these, Chainer's
    own, too.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import fastadam
    >>> opt = fastadam.Adam(alpha=0.1).setup({'w': np.ones(3)})
    >>> opt.apply_gradients({'w': np.ones(3)})
    >>> other = fastadam.Adam().setup({'w': np.zeros(3)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, 'run.npz')
    ...     fastadam.save(path, opt)
    ...     report = fastadam.load(path, other)
    >>> other == opt, other.alpha, report.verified
    (True, 0.1, True)
    """
    check_arguments(path, optimizer, parameters=parameters, compression=compression)
    kind = format_of(path)
    own = checkpointed(optimizer)
    values = storable_values(own.contents(parameters))
    entries = describe_all(values)
    versions = {
        "fastadam": __version__,
        "numpy": np.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **own.versions(),
        "class": type(optimizer).__name__,
    }
    values[KEY] = pack(Manifest(entries, versions))
    total, written = sum(value.nbytes for value in values.values()), 0

    def done(n_bytes: int) -> None:
        nonlocal written
        written += n_bytes
        if progress is not None:
            progress(written, total)

    kind.write(path, values, compression, done, entries)
