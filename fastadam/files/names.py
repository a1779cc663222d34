"""Which names values may have: the same in every kind of file."""

from __future__ import annotations

from collections.abc import Iterable

from fastadam.files.limits import DEPTH, NAME

__all__ = ["check_groups", "check_key", "check_keys", "plain"]


def plain(key: object) -> str:
    """Return a key as a string; of an enumeration's member that is one, its value."""
    return str.__str__(key) if isinstance(key, str) else str(key)


def check_key(key: str) -> str:
    """Return a key as a plain string, if every kind of file can hold it.

    Parameters
    ----------
    key : str
        The names of what the value is within, and its own, with slashes between them. Of a
        subclass of str, such as an enumeration's, it is the value as a str.

    Raises
    ------
    ValueError
        If it has a null character, a surrogate, a name that is empty or ``'.'``, or is too long or
        too deep.

    Examples
    --------
    >>> from fastadam.files.names import check_key
    >>> check_key('l1/W')
    'l1/W'
    >>> check_key('l1//W')
    Traceback (most recent call last):
        ...
    ValueError: 'l1//W' is no name for a value: a name in it is empty
    """
    name = plain(key)
    reason = _fault(name)
    if reason is not None:
        shown = repr(name) if len(name) <= 200 else f"{name[:200]!r}..."
        raise ValueError(f"{shown} is no name for a value: {reason}")
    return name


def _fault(key: str) -> str | None:
    """Return what is wrong with a key, None if nothing is."""
    try:
        length = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character"
    if length > NAME:
        return f"it takes {length:,} bytes in UTF-8, and a file has {NAME:,} for it"
    if "\0" in key:
        return "it has a null character, where names in files end"
    if "/" not in key and key not in ("", "."):
        return None
    names = key.split("/")
    if "" in names:
        return "a name in it is empty"
    if "." in names:
        return "'.' is no name in files"
    if len(names) > DEPTH:
        return f"it is {len(names):,} names deep, and {DEPTH:,} are the most"
    return None


def check_keys(keys: Iterable[str]) -> list[str]:
    """Return keys as plain strings, if every kind of file can hold each; two must not be one.

    Slashes before one are dropped. One that is no string is a TypeError, one that is no name, or
    there twice, a ValueError.
    """
    seen: dict[str, None] = {}
    for key in keys:
        if not isinstance(key, str):
            raise TypeError(f"cannot save the key {key!r}: keys must be strings")
        try:
            name = check_key(plain(key).lstrip("/"))
        except ValueError as error:
            raise ValueError(f"cannot save: {error}") from None
        if name in seen:
            raise ValueError(f"cannot save {name!r}: there is a dataset of that name already")
        seen[name] = None
    return list(seen)


def check_groups(keys: Iterable[str], groups: Iterable[str] = ()) -> list[str]:
    """Return the groups above keys, if none of these is a group itself, as folders are.

    `groups` are others that there shall be. A key that is that of a value, and what others are
    within, is a ValueError.
    """
    seen: set[str] = set()
    found = dict.fromkeys(groups)
    for key in keys:
        if key in found:
            raise ValueError(f"cannot save {key!r}: there is a group of that name already")
        seen.add(key)
        above = key.rpartition("/")[0]
        while above and above not in found:
            if above in seen:
                raise ValueError(
                    f"cannot save {key!r} below {above!r}: there is an array of that name, so it "
                    "cannot be a group"
                )
            found[above] = None
            above = above.rpartition("/")[0]
    return list(found)
