"""Members that stand twice in one JSON object: the parser keeps the last and says nothing.

Two readers may disagree about such a body (one takes the first, one the last), so it is refused. Looking for them
costs next to nothing: every member brings a colon behind a quotation mark, so where there are no more of those in the
text than members in the value, none was dropped. Only where there are more is the text read a second time.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from paceline.model.checks import pointer

_SPACE: Final = b" \t\r\n"
_LONG: Final = 1_000


def repeated(raw: bytes, value: Any) -> str | None:
    """The JSON pointer of a member that stands twice in its object, or None; `value` is what `raw` was read as."""
    if _cannot(raw, value):
        return None
    try:
        found = _find(json.loads(raw, object_pairs_hook=_Members))
    except RecursionError:  # deeper than anything that is taken: refused for that
        return None
    return None if found is None else pointer(*found)


def repeated_part(raw: bytes, parts: Mapping[str, msgspec.Raw]) -> str | None:
    """As `repeated`, for the outermost object alone, of which `parts` was split off unread."""
    rest = len(raw) - sum(memoryview(part).nbytes for part in parts.values())
    if rest < 2 + sum(len(name) + 4 for name in parts) + min(map(len, parts), default=0) + 4:
        return None  # between the parts there is no room for one more
    for part in parts.values():
        if memoryview(part).nbytes > _LONG:
            raw = raw.replace(bytes(part), b"0", 1)
    names = json.loads(raw, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
    return next((pointer(name) for index, name in enumerate(names) if name in names[:index]), None)


def _cannot(raw: bytes, value: Any) -> bool:
    colons = raw.translate(None, _SPACE).count(b'":')
    return (type(value) is dict and colons == len(value)) or colons == _members(value)


def _members(value: Any) -> int:
    """How many members the objects in a value have together."""
    children: Iterable[Any]
    if type(value) is dict:
        count, children = len(value), value.values()
    elif type(value) is list:
        count, children = 0, value
    else:
        return 0
    for child in children:
        if type(child) is dict or type(child) is list:
            count += _members(child)
    return count


class _Members(list[tuple[str, Any]]):
    """An object as it was written: all its members, in order."""


def _find(value: Any) -> list[str | int] | None:
    """The way to the first member that stands twice, outer objects first."""
    waiting: list[tuple[Any, list[str | int]]] = [(value, [])]
    for each, way in waiting:
        parts: Any = each if isinstance(each, _Members) else enumerate(each) if isinstance(each, list) else ()
        seen = set()
        for name, child in parts:
            if name in seen:
                return [*way, name]
            seen.add(name)
            waiting.append((child, [*way, name]))
    return None
