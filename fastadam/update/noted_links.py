"""What links hold, noted so that a change is found without another walk."""

from __future__ import annotations

from typing import Any

from fastadam.kernels._noted import Noted
from fastadam.model.chain import Chain, ChainList
from fastadam.model.link import Link
from fastadam.model.registry import registered
from fastadam.update.overrides import overrides_any

__all__ = ["noted_links"]

# How a link is walked.
_WALKS = ("params", "namedparams", "links", "children", "_own_params", "_named_children")


def noted_links(link: Any) -> Noted | None:
    """Note what every link holds; None if one of them does not walk as ours do."""
    if not isinstance(link, Link) or not _walks_as_ours(link):
        return None
    noted = Noted()
    pending: list[Link] = [link]
    # a link may be in several others, or, until a walk refuses it, in itself
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if not _walks_as_ours(part):
            return None
        own, (names, children) = vars(part), registered(part)
        noted.instance(part)
        for name in _WALKS:
            noted.attribute(type(part), name)
        named = [] if isinstance(part, ChainList) else [name for name, _ in children]
        noted.some(own, [*_WALKS, "_params", "_children", *names, *named])
        noted.members(names)
        if "_children" in own:
            noted.members(own["_children"])
        pending += [child for _, child in children]
    return noted


def _walks_as_ours(part: Any) -> bool:
    """Tell whether neither a link's class nor the link itself walks in a way of its own."""
    kind = Chain if isinstance(part, Chain) else ChainList if isinstance(part, ChainList) else Link
    return isinstance(part, Link) and not overrides_any(part, _WALKS, kind)
