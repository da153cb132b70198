"""The fields of a message that mean the same on every channel: one check each, read in a single pass."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from paceline.model import checks
from paceline.model.backoff import parse_backoff
from paceline.model.durations import parse_duration
from paceline.model.errors import Problem

MAX_RECIPIENTS = 1000
MAX_METADATA = 64 * 1024
MAX_URL = 2048

_encode = msgspec.json.Encoder().encode


def _timeout(value: object) -> int:
    return parse_duration(value, least=100, most=checks.MAX_TIMEOUT_MS)


def _delay(value: object) -> int:
    return _delay_text(value) if type(value) is str else checks.check_delay(value)


@lru_cache(maxsize=1024)
def _delay_text(value: str) -> int:
    return checks.check_delay(value)


def _attempts(value: object) -> int:
    return checks.check_integer(value, 1, 100)


def _variables(value: object) -> dict[str, Any]:
    return checks.check_object(value, 500)


def _backoff(value: object) -> str:
    parse_backoff(value)
    return _encode(value).decode()


def _metadata(value: object) -> str:
    text = _encode(checks.check_object(value, 100)).decode()
    if len(text) > MAX_METADATA:
        raise ValueError(f"must be at most {MAX_METADATA // 1024} KiB")
    return text


def _recipients(value: object) -> tuple[str, ...]:
    """One recipient as a text (a number is a chat id), or a list of them."""
    if isinstance(value, str):
        return (checks.check_label(value, MAX_URL),)
    if isinstance(value, bool) or not isinstance(value, (int, list)):
        raise ValueError("must be a text")
    if isinstance(value, int):
        return (str(value),)
    if not 1 <= len(value) <= MAX_RECIPIENTS:
        raise ValueError(f"must name 1 to {MAX_RECIPIENTS} recipients")
    if not all(isinstance(one, str) for one in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


CHECKS: dict[str, Callable[[object], Any]] = {
    "to": _recipients,
    "queue": checks.check_name,
    "account": checks.check_name,
    "pool": checks.check_name,
    "campaign": checks.check_name,
    "template": checks.check_name,
    "priority": checks.check_priority,
    "scheduled_at": checks.check_time,
    "delay": _delay,
    "expires_at": checks.check_time,
    "timeout": _timeout,
    "max_attempts": _attempts,
    "backoff": _backoff,
    "source": checks.check_label,
    "group": checks.check_label,
    "kind": checks.check_label,
    "idempotency_key": checks.check_label,
    "metadata": _metadata,
    "variables": _variables,
}
ELSEWHERE = frozenset({"channel", "tenant", "callback_url"})
"""Fields that are read before or after this pass."""
COMMON = frozenset(CHECKS) | ELSEWHERE


class Fields(msgspec.Struct):
    """What a body says: checked values of the common fields, and the channel's own fields as they came."""

    values: dict[str, Any]
    content: dict[str, Any]
    problems: list[Problem]


def read_fields(body: Mapping[str, Any], bodies: frozenset[str]) -> Fields:
    """Check every common field; a field that is null counts as left out, one that nobody knows is a problem."""
    values: dict[str, Any] = {}
    content: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in body.items():
        check = CHECKS.get(name)
        if name in bodies:
            content[name] = value
        elif check is None and name not in ELSEWHERE:
            near = checks.suggestion(name, COMMON | bodies)
            problems.append(Problem(checks.pointer(name), "there is no such field" + near))
        if check is None or value is None:
            continue
        try:
            values[name] = check(value)
        except ValueError as error:
            problems.append(Problem("/" + name, str(error)))
    return Fields(values, content, problems)
