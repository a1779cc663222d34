"""A file that is being loaded: what is asked of it is checked on the way."""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from fastadam.algorithms.algorithm import Stream
from fastadam.algorithms.table import CONVERTED
from fastadam.checkpoint.contents import OPTIMIZER, OURS, RULE, TARGET
from fastadam.checkpoint.renaming import Rename, hint_of_wrappers, old_names
from fastadam.files.entries import Value
from fastadam.files.errors import CheckpointError
from fastadam.files.formats import Reader
from fastadam.files.limits import SMALL, SPARE
from fastadam.files.manifest import KEY
from fastadam.files.verified import Listed
from fastadam.serializers._templates import IgnoredNames, IgnoreNames
from fastadam.update.master import followed

__all__ = ["Source"]

# What is saved only where there is any: no name of another's is close to it.
_OPTIONAL = re.compile(r"(^|/)(fp32_param|initial_alpha|fastadam/loss_scale\w*)$")


class Source:
    """The values of an open file, by the keys of the optimizer that is loaded.

    Parameters
    ----------
    reader : Reader
        The file.
    room : mapping of str to int
        How many bytes of each parameter's arrays there is room for, by path.
    rename : mapping of str to str, or callable
        Names of parameters, or of links above them: in the file, and in the target; or what makes
        the one of the other, for parameters.
    ignore_names : str, callable, or list of them, optional
        Keys that stay as they are.
    convert_amsgrad : bool
        Whether a stream that came with AMSGrad may be made of another if it is missing.
    wide : collection of str
        Paths of the parameters that can hold a float32 master, if there is one in the file.

    Attributes
    ----------
    plain : bool
        Whether it is a file of an optimizer alone, such as Chainer's.
    manifest : Manifest or None
        What the file should hold, if it says so.
    converts : bool
        Whether Adam's state may become AMSGrad's, and the other way round.
    shapes : dict of str to tuple
        Of what has been read, by the optimizer's keys.
    """

    def __init__(
        self,
        reader: Reader,
        room: Mapping[str, int | None],
        rename: Rename,
        ignore_names: IgnoreNames,
        convert_amsgrad: bool,
        wide: Collection[str] = (),
    ) -> None:
        self._wide = wide
        self.where = reader.where
        self._room = room
        self._ignored = IgnoredNames(ignore_names)
        self.converts = convert_amsgrad
        # for all that is no parameter's array, such as the states of hooks
        known = sum(n_bytes or 0 for n_bytes in room.values())
        self._spare = max(SPARE, known)
        self.keys = set(reader.keys())
        self._sorted = sorted(self.keys)
        # the count of updates is at the top of an optimizer's own file
        self.plain = KEY not in self.keys and "t" in self.keys
        self._values = Listed(reader)
        self.manifest = self._values.manifest
        if self.manifest is None and not self.plain:
            raise CheckpointError(
                f"{self.where} has no list of its contents ({KEY!r}), as files of fastadam.save "
                "have, and is no optimizer's file of Chainer's or save_npz: it is another file, or "
                "was cut off or changed after it was saved"
            )
        self.read: dict[str, None] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.missing: dict[str, None] = {}
        self.ignored: dict[str, None] = {}
        self.converted: dict[str, None] = {}
        self._old_names = old_names(rename, self.names())
        # what becomes something else, and what becomes nothing of that name
        self._new_names = {old: new for new, old in self._old_names.items()}
        self._check_old_names()

    def names(self) -> set[str]:
        """Return the names in the file of parameters, and of what else the target keeps."""
        section = "" if self.plain else OPTIMIZER
        states = [key.removeprefix(section).rpartition("/")[0] for key in self._under(section)]
        kept = [] if self.plain else [key.removeprefix(TARGET) for key in self._under(TARGET)]
        # what has no name above it is the optimizer's own, such as its count
        return {name for name in (*states, *kept) if name}

    def _check_old_names(self) -> None:
        """Refuse names in `rename` that nothing in the file has."""
        sections = ("",) if self.plain else (OPTIMIZER, TARGET, RULE)
        for old in self._old_names.values():
            names = [f"{section}{old}" for section in sections]
            if not any(name in self.keys or self._under(f"{name}/") for name in names):
                raise CheckpointError(f"rename: there is no {old!r} in {self.where}")

    def in_file(self, key: str) -> str:
        """Return the key in the file for one of the optimizer's."""
        if self._old_names:
            for section in (OPTIMIZER, TARGET, RULE):
                if key.startswith(section):
                    key = section + self._old_name(key[len(section) :])
                    break
        return key.removeprefix(OPTIMIZER) if self.plain else key

    def _old_name(self, name: str) -> str:
        """Return a name as it was; a parameter's own comes before that of a link above it."""
        there, below = name.rstrip("/"), name[len(name.rstrip("/")) :]
        while there:
            if there in self._old_names:
                return self._old_names[there] + below
            there, slash, last = there.rpartition("/")
            below = slash + last + below
        return name

    def _there(self, key: str) -> bool:
        """Tell whether the file has a value for a key, under the name that `rename` makes of it."""
        return self.in_file(key) in self.keys and self._renamed(key) is None

    def _renamed(self, key: str) -> str | None:
        """Return what `rename` makes of the name of a key, if no name in the file becomes it."""
        if not self._old_names:
            return None
        for section in (OPTIMIZER, TARGET, RULE):
            there = key.removeprefix(section).rstrip("/")
            if not key.startswith(section):
                continue
            while there:
                if there in self._old_names:
                    return None
                if there in self._new_names:
                    return self._new_names[there]
                there = there.rpartition("/")[0]
        return None

    def new_name(self, name: str) -> str:
        """Return a path, or a name behind one, as `rename` wants it."""
        path = name.rpartition(": ")[0]
        for new, old in self._old_names.items():
            if path == old or path.startswith(f"{old}/"):
                return new + name[len(old) :]
        return name

    def is_ignored(self, key: str) -> bool:
        """Tell whether a key stays as it is, and note it."""
        if key not in self._ignored:
            return False
        self.ignored[key] = None
        return True

    def __contains__(self, key: str) -> bool:
        return self._there(key) or self._origin(key) is not None

    def value(self, key: str) -> Value:
        """Read a value that is there, and compare it with the list of contents."""
        name = self.in_file(key)
        if not self._there(key):
            other = self._origin(key)
            assert other is not None
            self.converted[key] = None
            return self.value(other).copy()
        path = self._parameter(key)
        value = self._values.read(name, self._limit(path))
        self.read[name] = None
        self.shapes[key] = value.shape
        if path is None:
            self._spare -= value.nbytes
        master = self._master(key, value)
        if master is None:
            return value
        self.converted[key] = None
        entry = self.value(master)
        # misshaped ones are refused where the parameter's shape is known
        return followed(entry, value)[0] if entry.shape == value.shape else entry

    def demand(self, key: str, strict: bool) -> bool:
        """Tell whether a key is to be read; if `strict`, one that is missing is a KeyError."""
        if self.is_ignored(key):
            return False
        if key in self:
            return True
        self.missing[self.in_file(key)] = None
        if strict:
            raise KeyError(self.about_missing(key))
        return False

    def pass_over(self, key: str) -> None:
        """Note that a key is known, and stays unread."""
        self.read[self.in_file(key)] = None

    def about_missing(self, key: str) -> str:
        """Return what there is to say about a key that is not there."""
        name = self.in_file(key)
        if _OPTIONAL.search(name):
            return f"{self.where} has no {name!r}"
        renamed = self._renamed(key)
        if renamed is not None:
            return (
                f"{self.where} has nothing for {name!r}: `rename` makes {renamed!r} of what is "
                "called so there. strict=False leaves what is missing as it is"
            )
        if key.startswith(OURS):
            return (
                f"{self.where} has no {name!r}, which is saved with such an optimizer: it was "
                "saved with another, or changed since. strict=False leaves what is missing as it is"
            )
        if key.startswith(TARGET) and not any(there.startswith(TARGET) for there in self.keys):
            return (
                f"{self.where} was saved with parameters=False: load the parameters from "
                "elsewhere, and this with parameters=False"
            )
        # what has a place of its own already is not what is meant
        prefix = OPTIMIZER if self.plain else ""
        free = [there for there in self.keys if self._parameter(prefix + there) is None]
        close = difflib.get_close_matches(name, free, 1, 0.8)
        hint = "; strict=False leaves what is missing as it is"
        if close:
            hint = f"; there is {close[0]!r}, see `rename`"
        hint = hint_of_wrappers(self.names(), self._room) or hint
        stream = _converted(name)
        if stream is not None and _origin_of(name, stream) in self.keys:
            hint = (
                f": it was saved without {stream.when}. convert_{stream.when}=True begins "
                f"{stream.name} with {stream.made_of}, the largest that is known"
            )
        return f"{self.where} has no {name!r}{hint}"

    def check_ignored(self) -> None:
        """Refuse names in `ignore_names` that there are none of."""
        known = {*self.ignored, *self.missing, *self.keys}
        for name in self._ignored.names:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1, 0.3)
                longer = sorted(key for key in known if key.endswith(f"/{name}"))
                hint = f"; is {(longer or close)[0]!r} meant?" if longer or close else ""
                raise CheckpointError(f"ignore_names: there is no {name!r} in {self.where}{hint}")

    def left(self, aliases: Iterable[str]) -> list[str]:
        """Return the keys that were never asked for, but for the other names of what is shared."""
        prefix = "" if self.plain else OPTIMIZER
        others = {f"{prefix}{path}" for path in aliases}
        seen = {*self.read, *map(self.in_file, self.ignored), KEY}
        return sorted(key for key in self.keys - seen if not (others and _is_below(key, others)))

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the optimizer that begin with a prefix and are in the file, sorted."""
        if self._renamed(prefix) is not None:
            return []
        there = self.in_file(prefix)
        return [prefix + key[len(there) :] for key in self._under(there)]

    def _under(self, prefix: str) -> list[str]:
        """Return the keys in the file that begin with a prefix."""
        first = bisect.bisect_left(self._sorted, prefix)
        last = first
        while last < len(self._sorted) and self._sorted[last].startswith(prefix):
            last += 1
        return self._sorted[first:last]

    def values_under(self, prefix: str) -> dict[str, Value]:
        """Read all values whose keys begin with a prefix, but for those that stay as they are."""
        keys = self.keys_under(prefix)
        if self.converts:
            keys += [made for key in keys for made in _made_of(key) if self._origin(made) == key]
        return {key: self.value(key) for key in dict.fromkeys(keys) if not self.is_ignored(key)}

    def _origin(self, key: str) -> str | None:
        """Return the key of the array that a missing one may be made of, such as v for vhat."""
        if not self.converts or not key.startswith(OPTIMIZER):
            return None
        stream = _converted(key)
        if stream is None:
            return None
        origin = _origin_of(key, stream)
        return origin if self._there(origin) else None

    def _master(self, key: str, value: Value) -> str | None:
        """Return the key of the float32 master of a stored float16 that is to become wider."""
        path = key.removeprefix(TARGET)
        if path == key or path not in self._wide or value.dtype != np.float16:
            return None
        master = f"{OPTIMIZER}{path}/fp32_param"
        return master if self._there(master) and master not in self._ignored else None

    def _parameter(self, key: str) -> str | None:
        """Return the path of the parameter or value whose array a key holds."""
        section = OPTIMIZER if key.startswith(OPTIMIZER) else TARGET
        if not key.startswith(section):
            return None
        path = key[len(section) :]
        if path in self._room:
            return path
        above = path.rpartition("/")[0]
        return above if above in self._room else None

    def _limit(self, path: str | None) -> int | None:
        """Return how many bytes a value of a parameter may take; None if that is not known."""
        if path is None:
            return self._spare
        room = self._room[path]
        return None if room is None else max(room, SMALL)


def _converted(key: str) -> Stream | None:
    """Return the stream that a key is of, if it is one that may be made of another."""
    return next((stream for stream in CONVERTED if key.endswith(f"/{stream.name}")), None)


def _origin_of(key: str, stream: Stream) -> str:
    """Return the key of the stream that one is made of."""
    return f"{key.removesuffix(stream.name)}{stream.made_of}"


def _made_of(key: str) -> list[str]:
    """Return the keys of what may be made of an array, by its key."""
    ends = [(f"/{stream.made_of}", f"/{stream.name}") for stream in CONVERTED]
    return [key.removesuffix(end) + other for end, other in ends if key.endswith(end)]


def _is_below(key: str, paths: set[str]) -> bool:
    """Tell whether one of these paths is above a key."""
    while key:
        key = key.rpartition("/")[0]
        if key in paths:
            return True
    return False
