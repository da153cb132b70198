"""From a body that somebody sent to a row that can be stored: every check a message passes before 'yes'."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from paceline.channels.base import Channel
from paceline.engine.directory import Directory
from paceline.engine.templates import render
from paceline.model import checks
from paceline.model.accounts import DEFAULT_POOL, DEFAULT_TENANT, AccountSpec
from paceline.model.backoff import parse_backoff
from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, Problem
from paceline.model.messages import NOBODY, FlowKey, NewMessage, lane_key
from paceline.model.states import State

COMMON = frozenset(
    [
        "channel",
        "to",
        "queue",
        "kind",
        "account",
        "pool",
        "priority",
        "scheduled_at",
        "delay",
        "expires_at",
        "max_attempts",
        "timeout",
        "backoff",
        "source",
        "group",
        "campaign",
        "metadata",
        "idempotency_key",
        "callback_url",
        "tenant",
        "template",
        "variables",
    ]
)
MAX_RECIPIENTS = 1000
MAX_CONTENT = 24 * 1024 * 1024
MAX_METADATA = 64 * 1024

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Prepared(msgspec.Struct, frozen=True):
    """A message that passed every check, and its flow."""

    row: NewMessage
    flow: FlowKey


class Intake:
    """Checks bodies against the configuration in force. Makes no I/O and changes nothing."""

    def __init__(
        self, directory: Directory, next_id: Callable[[int], int], check_url: Callable[[str], str | None]
    ) -> None:
        """`check_url` tells what is wrong with an address that a call-back would go to."""
        self.directory = directory
        self.next_id = next_id
        self.check_url = check_url
        self._known: dict[str, frozenset[str]] = {}
        self._numbers: dict[FlowKey, int] = {}

    def prepare(self, body: Mapping[str, Any], tenant: str, now: int, batch: int | None = None) -> Prepared:
        """Check one body.

        Raises:
            InvalidError: with every problem found, each naming its field.
        """
        problems: list[Problem] = []
        channel = self._channel(body, problems)
        if channel is None:
            raise InvalidError(problems)
        draft = _Draft(body, problems)
        self._refuse_unknown(body, channel, problems)
        to, content = self._content(draft, channel, tenant)
        account = self._account(draft, channel, tenant)
        pool, lane = self._lane(draft, channel, account, tenant)
        queue = draft.take("queue", checks.check_name) or self._queue_of(channel, draft)
        spec = self.directory.queue(queue)
        priority = draft.take("priority", checks.check_priority)
        key = FlowKey(
            lane, tenant, draft.take("campaign", checks.check_name) or "", queue,
            5 if priority is None else priority, account.id if account else NOBODY,
        )  # fmt: skip
        due_at, expires_at = self._times(draft, now)
        timeout = draft.take("timeout", lambda v: parse_duration(v, least=100, most=checks.MAX_TIMEOUT_MS))
        attempts = draft.take("max_attempts", lambda v: checks.check_integer(v, 1, 100))
        recipient = ", ".join(to)
        row = NewMessage(
            id=0,
            flow=0,
            state=State.PENDING if due_at <= now else State.SCHEDULED,
            due_at=due_at,
            turn=due_at,
            created_at=now,
            expires_at=expires_at,
            tenant=tenant,
            queue=queue,
            channel=channel.name,
            account=key.account,
            pool=pool,
            recipient=recipient,
            priority=key.priority,
            max_attempts=attempts or spec.max_attempts,
            timeout_ms=timeout or spec.timeout_ms,
            content=_encode(content).decode(),
            trace_id="",
            backoff=draft.take("backoff", _backoff),
            group=draft.take("group", checks.check_label),
            source=draft.take("source", checks.check_label),
            kind=draft.take("kind", checks.check_label),
            campaign=key.campaign or None,
            batch=batch,
            metadata=draft.take("metadata", _metadata),
            callback_url=draft.take("callback_url", self._url),
        )
        if "idempotency_key" in body:
            row.idempotency_key = draft.take("idempotency_key", checks.check_label)
            row.fingerprint = fingerprint(body)
        if len(row.content) > MAX_CONTENT:
            draft.problem("", f"the message is larger than {MAX_CONTENT // 1024 // 1024} MiB")
        if problems:
            raise InvalidError(problems)
        row.id = self.next_id(now)
        row.trace_id = f"{row.id:032x}"
        row.flow = self.flow_number(key)
        return Prepared(row, key)

    def flow_number(self, key: FlowKey) -> int:
        """The number of a flow, remembered because making it costs a hash."""
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) > 500_000:
                self._numbers.clear()
            number = self._numbers[key] = key.number
        return number

    def _channel(self, body: Mapping[str, Any], problems: list[Problem]) -> Channel | None:
        name = body.get("channel")
        channel = self.directory.channels.get(name) if isinstance(name, str) else None
        if channel is None:
            known = sorted(self.directory.channels)
            if name is None:
                problems.append(Problem("/channel", f"is missing; one of {', '.join(known)}"))
            else:
                hint = checks.suggestion(str(name), known) or f"; one of {', '.join(known)}"
                problems.append(Problem("/channel", "there is no such channel" + hint))
        return channel

    def _refuse_unknown(self, body: Mapping[str, Any], channel: Channel, problems: list[Problem]) -> None:
        known = self._known.get(channel.name)
        if known is None:
            known = self._known[channel.name] = COMMON | channel.bodies
        if not body.keys() <= known:
            problems.extend(Problem(at, what) for at, what in checks.unknown_fields(body, known))

    def _content(
        self, draft: "_Draft", channel: Channel, tenant: str
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        body = draft.body
        to = self._recipients(draft, channel)
        bodies = channel.bodies
        content = {name: value for name, value in body.items() if name in bodies}
        if "template" in body:
            self._fill(draft, tenant, content)
        elif "variables" in body:
            draft.problem("/variables", "only goes with a template")
        if channel.body_required and not channel.body_required & content.keys() and not draft.problems:
            names = " or ".join(sorted(channel.body_required))
            draft.problem("", f"the message has no body: give {names}, or a template")
        if not draft.problems:
            draft.problems.extend(channel.check(to, content))
        if isinstance(body.get("to"), list):
            content["to"] = list(to)
        return to, content

    def _recipients(self, draft: "_Draft", channel: Channel) -> tuple[str, ...]:
        to = draft.body.get("to")
        if to is None:
            return ()
        if isinstance(to, bool) or not isinstance(to, (str, int, list)):
            draft.problem("/to", "must be a text")
            return ()
        if isinstance(to, int):
            return (str(to),)  # chat ids are numbers in many hands
        if isinstance(to, str):
            return (draft.take("to", lambda v: checks.check_label(v, 2048)) or "",)
        if not channel.many_recipients:
            draft.problem("/to", "must be one recipient; a list is only for e-mail")
        elif not 1 <= len(to) <= MAX_RECIPIENTS:
            draft.problem("/to", f"must name 1 to {MAX_RECIPIENTS} recipients")
        elif not all(isinstance(one, str) for one in to):
            draft.problem("/to", "must be a list of texts")
        else:
            return tuple(to)
        return ()

    def _fill(self, draft: "_Draft", tenant: str, content: dict[str, Any]) -> None:
        name = draft.take("template", checks.check_name)
        variables = draft.take("variables", lambda v: checks.check_object(v, 500)) or {}
        if name is None:
            return
        template = self.directory.templates.get((tenant, name))
        if template is None:
            near = checks.suggestion(name, [n for t, n in self.directory.templates if t == tenant])
            draft.problem("/template", f"there is no template '{name}'{near}")
            return
        try:
            content.update(render(template, variables))
        except ValueError as error:
            draft.problem("/variables", str(error))

    def _account(self, draft: "_Draft", channel: Channel, tenant: str) -> AccountSpec | None:
        name = draft.take("account", checks.check_name)
        if name is None:
            return None
        account = self.directory.find_account(tenant, name)
        if account is None:
            near = checks.suggestion(name, self.directory.account_names(tenant, channel.name))
            draft.problem("/account", f"there is no account '{name}'{near}")
        elif account.channel != channel.name:
            draft.problem(
                "/account", f"'{name}' is an account of channel {account.channel}, not {channel.name}"
            )
        return account

    def _lane(
        self, draft: "_Draft", channel: Channel, account: AccountSpec | None, tenant: str
    ) -> tuple[str, str]:
        pool = draft.take("pool", checks.check_name)
        if account is not None:
            if pool is not None and pool != account.pool:
                draft.problem("/pool", f"account '{account.name}' is in pool '{account.pool}'")
            return account.pool, account.lane
        wanted = pool or DEFAULT_POOL
        for owner in (tenant, DEFAULT_TENANT):
            lane = lane_key(owner, channel.name, wanted)
            if lane in self.directory.lanes:
                return wanted, lane
        if "account" not in draft.body:
            draft.problem(
                "/pool" if pool else "/account",
                f"there is no account of channel {channel.name} in pool '{wanted}'; "
                "create one with PUT /api/v1/accounts/NAME",
            )
        return wanted, lane_key(tenant, channel.name, wanted)

    def _queue_of(self, channel: Channel, draft: "_Draft") -> str:
        # A job goes to the queue of its kind where there is one: a handler is registered under that name.
        kind = draft.body.get("kind")
        if not channel.needs_account and isinstance(kind, str) and kind in self.directory.queues:
            return kind
        return channel.default_queue

    def _times(self, draft: "_Draft", now: int) -> tuple[int, int | None]:
        scheduled = draft.take("scheduled_at", checks.check_time)
        delay = draft.take("delay", checks.check_delay)
        expires = draft.take("expires_at", checks.check_time)
        if scheduled is not None and delay is not None:
            draft.problem("/delay", "give either scheduled_at or delay, not both")
        if scheduled is not None and scheduled < now - checks.PAST_GRACE_MS:
            draft.problem("/scheduled_at", "is in the past; leave it out to send now")
        due = now + delay if delay is not None else max(now, scheduled or now)
        if expires is not None and expires <= now:
            draft.problem("/expires_at", "is in the past: the message would never be sent")
        elif expires is not None and expires <= due:
            draft.problem("/expires_at", "is not after the moment the message is scheduled for")
        return due, expires

    def _url(self, value: object) -> str:
        text = checks.check_label(value, 2048)
        wrong = self.check_url(text)
        if wrong:
            raise ValueError(wrong)
        return text


class _Draft:
    """A body being read: each field is taken once, and what is wrong with it is noted."""

    __slots__ = ("body", "problems")

    def __init__(self, body: Mapping[str, Any], problems: list[Problem]) -> None:
        self.body = body
        self.problems = problems

    def take(self, name: str, check: Callable[[object], Any]) -> Any:
        value = self.body.get(name)
        if value is None:
            return None
        try:
            return check(value)
        except ValueError as error:
            self.problems.append(Problem("/" + name, str(error)))
            return None

    def problem(self, field: str, text: str) -> None:
        self.problems.append(Problem(field, text))


def fingerprint(body: Mapping[str, Any]) -> str:
    """The same for two bodies that say the same, whatever the order of their members."""
    same = {name: value for name, value in body.items() if name != "idempotency_key"}
    return blake2b(_encode_sorted(same), digest_size=12).hexdigest()


def _backoff(value: object) -> str:
    parse_backoff(value)
    return _encode(value).decode()


def _metadata(value: object) -> str:
    text = _encode(checks.check_object(value, 100)).decode()
    if len(text) > MAX_METADATA:
        raise ValueError(f"must be at most {MAX_METADATA // 1024} KiB")
    return text
