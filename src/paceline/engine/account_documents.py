"""Accounts as JSON: what people PUT is checked, secrets are sealed for the store and never shown again."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from paceline.channels.base import Channel, Setting
from paceline.engine.secrets import Vault
from paceline.model import checks
from paceline.model.accounts import DEFAULT_POOL, AccountSpec, CircuitSpec, QuotaSpec
from paceline.model.durations import format_duration, parse_duration
from paceline.model.errors import InvalidError, Problem
from paceline.model.limits import Limit, parse_limit
from paceline.stores.base import Document

KIND = "account"
HIDDEN = "********"
"""Shown in place of a secret that is set; sent back unchanged, it leaves the secret as it is."""
FIELDS = (
    "channel",
    "settings",
    "limits",
    "interval",
    "jitter",
    "concurrency",
    "quota",
    "circuit",
    "pool",
    "enabled",
    "shared",
)
MAX_LIMITS = 20
MAX_CONCURRENCY = 10_000
MAX_PAUSE_MS = 3_600_000
"""The longest pause before a provider that is down is asked again."""

_encode = msgspec.json.Encoder().encode


class AccountReader:
    """Reads an account body against its channel's schema."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        """`channels` by name."""
        self._channels = channels

    def read(self, owner: str, name: str, body: Mapping[str, Any], old: AccountSpec | None) -> AccountSpec:
        """Check everything.

        Raises:
            InvalidError: with every problem, each naming its field.
        """
        problems = [Problem(at, what) for at, what in checks.unknown_fields(body, FIELDS)]
        take = _taker(body, problems)
        if "/" in name or _wrong(checks.check_name, name):
            problems.append(Problem("/name", _wrong(checks.check_name, name) or "must not contain '/'"))
        channel = self._channel(body, old, problems)
        settings = self._settings(channel, body.get("settings", {}), old, problems) if channel else {}
        spec = AccountSpec(
            owner=owner,
            name=name,
            channel=channel.name if channel else "",
            settings=settings,
            limits=_limits(body.get("limits", []), problems),
            interval_ms=take("interval", lambda v: parse_duration(v, most=31 * 86_400_000), 0),
            jitter=take("jitter", lambda v: checks.check_number(v, 0, 10), 0.0),
            concurrency=take("concurrency", lambda v: checks.check_integer(v, 1, MAX_CONCURRENCY), 1),
            quota=_quota(body.get("quota"), problems),
            circuit=_circuit(body["circuit"], problems) if "circuit" in body else CircuitSpec(),
            pool=take("pool", checks.check_name, DEFAULT_POOL),
            enabled=take("enabled", checks.check_boolean, True),
            paused=old.paused if old else False,
            shared=take("shared", checks.check_boolean, False),
        )
        if spec.jitter and not spec.interval_ms:
            problems.append(Problem("/jitter", "only goes with an interval"))
        if problems:
            raise InvalidError(problems)
        return spec

    def _channel(
        self, body: Mapping[str, Any], old: AccountSpec | None, problems: list[Problem]
    ) -> Channel | None:
        wanted = body.get("channel", old.channel if old else None)
        channel = self._channels.get(wanted) if isinstance(wanted, str) else None
        if channel is None:
            known = sorted(self._channels)
            hint = checks.suggestion(str(wanted), known) or f"; one of {', '.join(known)}"
            problems.append(
                Problem("/channel", ("is missing" if wanted is None else "there is no such channel") + hint)
            )
        return channel

    def _settings(
        self, channel: Channel, given: object, old: AccountSpec | None, problems: list[Problem]
    ) -> dict[str, Any]:
        if not isinstance(given, dict):
            problems.append(Problem("/settings", "must be an object"))
            return {}
        schema = {setting.name: setting for setting in channel.settings}
        for at, what in checks.unknown_fields(given, schema):
            problems.append(Problem("/settings" + at, what))
        kept = old.settings if old and old.channel == channel.name else {}
        settings: dict[str, Any] = {}
        for name, setting in schema.items():
            value = given.get(name)
            if setting.secret and name in kept and (value == HIDDEN or name not in given):
                settings[name] = kept[name]
            elif value is not None:
                _one_setting(setting, value, settings, problems)
            elif setting.required:
                problems.append(
                    Problem(f"/settings/{name}", "is missing" + (f": {setting.help}" if setting.help else ""))
                )
            elif setting.default is not None:
                settings[name] = setting.default
        if not problems:
            problems += [Problem("/settings" + p.field, p.problem) for p in channel.check_settings(settings)]
        return settings


def _one_setting(setting: Setting, value: object, settings: dict[str, Any], problems: list[Problem]) -> None:
    try:
        settings[setting.name] = _check_setting(setting, value)
    except ValueError as error:
        problems.append(Problem(f"/settings/{setting.name}", str(error)))


def _check_setting(setting: Setting, value: object) -> Any:
    least = -(1 << 53) if setting.least is None else setting.least
    most = 1 << 53 if setting.most is None else setting.most
    if setting.kind == "integer":
        return checks.check_integer(value, int(least), int(most))
    if setting.kind == "number":
        return checks.check_number(value, least, most)
    if setting.kind == "boolean":
        return checks.check_boolean(value)
    text = checks.check_label(value, 4096)
    if setting.kind == "choice" and text not in setting.choices:
        raise ValueError(
            "must be one of " + ", ".join(setting.choices) + checks.suggestion(text, setting.choices)
        )
    return text


def _limits(given: object, problems: list[Problem]) -> tuple[Limit, ...]:
    if not isinstance(given, list) or len(given) > MAX_LIMITS:
        problems.append(
            Problem("/limits", f"must be a list of at most {MAX_LIMITS} limits, like ['20/min', '200/h']")
        )
        return ()
    limits = []
    for index, text in enumerate(given):
        try:
            limits.append(parse_limit(text))
        except ValueError as error:
            problems.append(Problem(f"/limits/{index}", str(error)))
    return tuple(limits)


def _quota(given: object, problems: list[Problem]) -> QuotaSpec | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        problems.append(Problem("/quota", 'must be an object like {"day": 1000, "zone": "Asia/Shanghai"}'))
        return None
    found = [
        Problem("/quota" + at, what) for at, what in checks.unknown_fields(given, ("day", "month", "zone"))
    ]
    take = _taker(given, found, "/quota")
    count = lambda v: checks.check_integer(v, 1, 1_000_000_000)  # noqa: E731 - used twice, right here
    spec = QuotaSpec(take("day", count, None), take("month", count, None), take("zone", _zone, "UTC"))
    if spec.day is None and spec.month is None and not found:
        found.append(Problem("/quota", "must set day, month or both"))
    problems += found
    return spec


def _circuit(given: object, problems: list[Problem]) -> CircuitSpec | None:
    """Null turns it off."""
    if given is None:
        return None
    if not isinstance(given, dict):
        problems.append(Problem("/circuit", 'must be null or an object like {"after": 5, "at_most": "60s"}'))
        return None
    found = [
        Problem("/circuit" + at, what)
        for at, what in checks.unknown_fields(given, ("after", "pause", "at_most"))
    ]
    take, usual = _taker(given, found, "/circuit"), CircuitSpec()
    pause = partial(parse_duration, least=100, most=MAX_PAUSE_MS)
    spec = CircuitSpec(
        take("after", lambda v: checks.check_integer(v, 1, 1000), usual.after),
        take("pause", pause, usual.pause_ms),
        take("at_most", pause, usual.most_ms),
    )
    if spec.pause_ms > spec.most_ms and not found:
        found.append(Problem("/circuit/pause", "must not be longer than at_most"))
    problems += found
    return spec


def _zone(value: object) -> str:
    text = checks.check_label(value, 64)
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"there is no time zone '{text}'; write it like Asia/Shanghai or Europe/Stockholm"
        ) from None
    return text


def _taker(body: Mapping[str, Any], problems: list[Problem], under: str = "") -> Any:
    def take(name: str, check: Any, default: Any) -> Any:
        value = body.get(name)
        if value is None:
            return default
        try:
            return check(value)
        except ValueError as error:
            problems.append(Problem(f"{under}/{name}", str(error)))
            return default

    return take


def _wrong(check: Any, value: object) -> str | None:
    try:
        check(value)
    except ValueError as error:
        return str(error)
    return None


def to_document(spec: AccountSpec, channel: Channel | None, vault: Vault, now: int) -> Document:
    """The row to store: secrets sealed. Without its channel they were never read, and are sealed still."""
    sealed = {s.name for s in channel.settings if s.secret} if channel else set()
    settings = {
        name: vault.seal(str(value), f"{spec.id}/{name}") if name in sealed else value
        for name, value in spec.settings.items()
    }
    body = msgspec.to_builtins(msgspec.structs.replace(spec, settings=settings))
    return Document(KIND, spec.owner, spec.name, _encode(body).decode(), now)


def from_document(document: Document, channels: Mapping[str, Channel], vault: Vault) -> AccountSpec:
    """The account of a stored row: secrets readable again."""
    spec = msgspec.json.decode(document.body, type=AccountSpec)
    channel = channels.get(spec.channel)
    sealed = {s.name for s in channel.settings if s.secret} if channel else set()
    for name in sealed & spec.settings.keys():
        spec.settings[name] = vault.unseal(spec.settings[name], f"{spec.id}/{name}")
    return spec


def account_view(spec: AccountSpec, channel: Channel | None) -> dict[str, Any]:
    """The configuration as JSON; a secret that is set shows as asterisks."""
    hidden = {s.name for s in channel.settings if s.secret} if channel else set(spec.settings)
    quota, circuit = spec.quota, spec.circuit
    return {
        "name": spec.name,
        "tenant": spec.owner,
        "channel": spec.channel,
        "settings": {name: HIDDEN if name in hidden else value for name, value in spec.settings.items()},
        "limits": [str(limit) for limit in spec.limits],
        "interval": format_duration(spec.interval_ms) if spec.interval_ms else None,
        "jitter": spec.jitter,
        "concurrency": spec.concurrency,
        "quota": {"day": quota.day, "month": quota.month, "zone": quota.zone} if quota else None,
        "circuit": None
        if circuit is None
        else {
            "after": circuit.after,
            "pause": format_duration(circuit.pause_ms),
            "at_most": format_duration(circuit.most_ms),
        },
        "pool": spec.pool,
        "enabled": spec.enabled,
        "shared": spec.shared,
    }
