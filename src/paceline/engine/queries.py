"""Filters of lists, exports and actions, read from what people write."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paceline.engine.keys import Caller
from paceline.model import checks, ids
from paceline.model.accounts import DEFAULT_TENANT
from paceline.model.errors import InvalidError, Problem
from paceline.model.messages import account_id
from paceline.model.states import BY_LABEL
from paceline.stores.base import Filter

_TEXTS = (
    "queue",
    "channel",
    "account",
    "pool",
    "tenant",
    "campaign",
    "group",
    "source",
    "kind",
    "code",
    "to",
)
KNOWN = frozenset((*_TEXTS, "batch", "state", "priority", "created_from", "created_to", "q"))
MAX_VALUES = 100


def parse_query(query: Mapping[str, Any], caller: Caller, accounts: Iterable[str] = ()) -> Filter:
    """A filter from names and lists of values; a single value may stand without its list.

    People name an account by its name, the store by its id: `accounts` are the ids that there are. A key of
    the whole installation may also write ``tenant/name``.

    Raises:
        InvalidError: an unknown name, or a value that cannot be.
    """
    problems = [Problem(at, what) for at, what in checks.unknown_fields(query, KNOWN)]
    parts: dict[str, Any] = {}
    for name, given in query.items():
        if name not in KNOWN:
            continue
        values = list(given) if isinstance(given, (list, tuple)) else [given]
        try:
            parts[name] = _part(name, values)
        except ValueError as error:
            problems.append(Problem("/" + name, str(error)))
    if problems:
        raise InvalidError(problems)
    if caller.tenant is not None:
        if parts.get("tenant", (caller.tenant,)) != (caller.tenant,):
            parts["ids"] = (-1,)  # another tenant's messages do not exist for this key
        parts["tenant"] = (caller.tenant,)
    if "account" in parts:
        parts["account"] = _account_ids(parts["account"], parts.get("tenant", ()), accounts)
    return Filter(**parts)


def _account_ids(names: Sequence[str], tenants: Sequence[str], accounts: Iterable[str]) -> tuple[str, ...]:
    """Every id that a name can stand for: of the tenants asked for (of all, when none is), or a shared one."""
    found = dict.fromkeys(name for name in names if "/" in name)
    bare = {name for name in names if "/" not in name}
    owners = [*tenants, DEFAULT_TENANT]
    found |= dict.fromkeys(account_id(owner, name) for name in names if name in bare for owner in owners)
    if not tenants and bare:
        found |= dict.fromkeys(id_ for id_ in accounts if id_.partition("/")[2] in bare)
    return tuple(found)


def _part(name: str, values: Sequence[Any]) -> Any:
    if not 1 <= len(values) <= MAX_VALUES:
        raise ValueError(f"may be given 1 to {MAX_VALUES} times")
    if name in ("created_from", "created_to", "q"):
        if len(values) != 1:
            raise ValueError("may be given once")
        return checks.check_label(values[0], 200) if name == "q" else checks.check_time(values[0])
    if name == "state":
        return tuple(_state(value) for value in values)
    if name == "priority":
        return tuple(
            checks.check_priority(int(v) if isinstance(v, str) and v.isdecimal() else v) for v in values
        )
    if name == "batch":
        return tuple(_id(value) for value in values)
    return tuple(checks.check_label(value, 2048) for value in values)


def _state(value: object) -> int:
    state = BY_LABEL.get(value) if isinstance(value, str) else None
    if state is None:
        raise ValueError("must be one of " + ", ".join(BY_LABEL) + checks.suggestion(str(value), BY_LABEL))
    return int(state)


def _id(value: object) -> int:
    number = ids.from_text(value) if isinstance(value, str) else None
    return -1 if number is None else number
