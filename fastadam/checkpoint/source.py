"""A file that is being loaded: what is asked of it is checked on the way."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastadam.checkpoint.contents import OPTIMIZER, RULE, TARGET
from fastadam.checkpoint.entries import Value, describe, is_none
from fastadam.checkpoint.errors import CheckpointError
from fastadam.checkpoint.formats import Reader
from fastadam.checkpoint.manifest import KEY, Manifest, unpack
from fastadam.serializers._templates import IgnoredNames, IgnoreNames, fill_template
from fastadam.serializers.protocol import Deserializer

__all__ = ["Source", "SourceDeserializer"]

# The largest list of contents, and the largest value that is no array of a parameter's.
_MANIFEST_LIMIT = 1 << 28
_SMALL = 1 << 20
# What Chainer does not know, and what is saved only where there is any.
_OPTIONAL = re.compile(r"(^|/)(fp32_param|initial_alpha|fastadam/loss_scale\w*)$")


class Source:
    """The values of an open file, by the keys of the optimizer that is loaded.

    Parameters
    ----------
    reader : Reader
        The file.
    room : mapping of str to int
        How many bytes of each parameter's arrays there is room for, by path.
    rename : mapping of str to str
        Names of parameters, or of links above them: in the file, and in the target.
    ignore_names : str, callable, or list of them, optional
        Keys that stay as they are.
    convert_amsgrad : bool
        Whether a missing vhat is made of v.

    Attributes
    ----------
    plain : bool
        Whether it is a file of an optimizer alone, such as Chainer's.
    manifest : Manifest or None
        What the file should hold, if it says so.
    """

    def __init__(
        self,
        reader: Reader,
        room: Mapping[str, int | None],
        rename: Mapping[str, str],
        ignore_names: IgnoreNames,
        convert_amsgrad: bool,
    ) -> None:
        self.where = reader.where
        self._reader = reader
        self._room = room
        self._old_names = {new.strip("/"): old.strip("/") for old, new in rename.items()}
        self._ignored = IgnoredNames(ignore_names)
        self._convert = convert_amsgrad
        self.keys = set(reader.keys())
        self.manifest: Manifest | None = None
        # the count of updates is at the top of an optimizer's own file
        self.plain = KEY not in self.keys and "t" in self.keys
        if KEY in self.keys:
            self.manifest = unpack(reader.read(KEY, _MANIFEST_LIMIT), self.where)
            self._compare_keys(self.manifest)
        elif not self.plain:
            raise CheckpointError(
                f"{self.where} has no list of its contents ({KEY!r}), as files of fastadam.save "
                "have, and is no optimizer's file of Chainer's or save_npz: it is another file, or "
                "was cut off or changed after it was saved"
            )
        self.read: dict[str, None] = {}
        self.missing: dict[str, None] = {}
        self.ignored: dict[str, None] = {}
        self.converted: dict[str, None] = {}

    def _compare_keys(self, manifest: Manifest) -> None:
        """Refuse a file that has lost values, or that others were put into."""
        listed = set(manifest.entries) | {KEY}
        for keys, what in ((listed - self.keys, "lacks"), (self.keys - listed, "holds besides")):
            if keys:
                raise CheckpointError(
                    f"{self.where} was changed after it was saved: it {what} "
                    f"{', '.join(map(repr, sorted(keys)[:5]))}"
                )

    def in_file(self, key: str) -> str:
        """Return the key in the file for one of the optimizer's."""
        for section in (OPTIMIZER, TARGET, RULE):
            if key.startswith(section):
                name = key[len(section) :]
                for new, old in self._old_names.items():
                    if name == new or name.startswith(new + "/"):
                        name = old + name[len(new) :]
                        break
                key = section + name
                break
        return key.removeprefix(OPTIMIZER) if self.plain else key

    def is_ignored(self, key: str) -> bool:
        """Tell whether a key stays as it is, and note it."""
        if key not in self._ignored:
            return False
        self.ignored[key] = None
        return True

    def __contains__(self, key: str) -> bool:
        return self.in_file(key) in self.keys or self._v_for(key) is not None

    def value(self, key: str) -> Value:
        """Read a value that is there, and compare it with the list of contents."""
        name = self.in_file(key)
        if name not in self.keys:
            other = self._v_for(key)
            assert other is not None
            self.converted[key] = None
            return self.value(other).copy()
        value = self._reader.read(name, self._limit(key))
        if self.manifest is not None:
            listed = self.manifest.entries[name]
            if describe(value, listed.dtype) != listed:
                raise CheckpointError(
                    f"{name!r} in {self.where} is damaged: its values are not those that were saved"
                )
        self.read[name] = None
        return value

    def note_missing(self, key: str) -> str:
        """Note a key that is not there; return what there is to say about it."""
        name = self.in_file(key)
        self.missing[name] = None
        close = difflib.get_close_matches(name, self.keys, 1, 0.8)
        hint = f"; there is {close[0]!r}, see `rename`" if close else ""
        if name.endswith("/vhat") and name[: -len("hat")] in self.keys:
            hint = (
                ": it was saved without AMSGrad. convert_amsgrad=True begins vhat with v, the "
                "largest that is known"
            )
        return f"{self.where} has no {name!r}{hint}"

    def left(self, aliases: Iterable[str]) -> list[str]:
        """Return the keys that nobody has asked for, but for the other names of what is shared."""
        prefix = "" if self.plain else OPTIMIZER
        others = tuple(f"{prefix}{path}/" for path in aliases)
        seen = {*self.read, *map(self.in_file, self.ignored), KEY}
        return sorted(key for key in self.keys - seen if not key.startswith(others))

    def lost(self) -> tuple[str, ...]:
        """Return the keys that are missing, without those that a file need not have."""
        return tuple(key for key in self.missing if not _OPTIONAL.search(key))

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the optimizer that begin with a prefix and are in the file."""
        there = self.in_file(prefix)
        return [prefix + key[len(there) :] for key in self.keys if key.startswith(there)]

    @property
    def converts(self) -> bool:
        """Whether Adam's state may become AMSGrad's, and the other way round."""
        return self._convert

    def _v_for(self, key: str) -> str | None:
        """Return the key of the v that a missing vhat may be made of."""
        if not (self._convert and key.startswith(OPTIMIZER) and key.endswith("/vhat")):
            return None
        v = key[: -len("hat")]
        return v if self.in_file(v) in self.keys else None

    def _limit(self, key: str) -> int | None:
        """Return how many bytes of a key there is room for; None where nobody knows yet."""
        for section in (OPTIMIZER, TARGET):
            if key.startswith(section):
                path = key[len(section) :]
                for candidate in (path, path.rpartition("/")[0]):
                    if candidate in self._room:
                        room = self._room[candidate]
                        return None if room is None else max(room, _SMALL)
        return _SMALL


class SourceDeserializer(Deserializer):
    """What objects read a source by.

    Parameters
    ----------
    source : Source
        The file.
    path : str
        What every key begins with.
    strict : bool
        Whether a missing key is an error.
    """

    def __init__(self, source: Source, path: str, strict: bool) -> None:
        self.source, self.path, self.strict = source, path, strict

    def __getitem__(self, key: str) -> SourceDeserializer:
        """Return the deserializer of a child."""
        return SourceDeserializer(self.source, f"{self.path}{key.strip('/')}/", self.strict)

    def __call__(self, key: str, value: Any) -> Any:
        """Load one value.

        Raises
        ------
        KeyError
            If it is missing, and `strict` is true.
        CheckpointError
            If it is damaged.
        ValueError, TypeError
            If it does not fit.
        """
        key = self.path + key.lstrip("/")
        if self.source.is_ignored(key):
            return value
        if key not in self.source:
            message = self.source.note_missing(key)
            if self.strict:
                raise KeyError(message)
            return value
        stored = self.source.value(key)
        return fill_template(None if is_none(stored) else stored, value, key)
