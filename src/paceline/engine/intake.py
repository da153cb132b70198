"""From a body that somebody sent to a row that can be stored: every check a message passes before 'yes'."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from paceline.channels.base import Channel
from paceline.engine.directory import Directory
from paceline.engine.fields import MAX_URL, Fields, read_fields
from paceline.engine.templates import render
from paceline.model import checks
from paceline.model.accounts import DEFAULT_POOL, DEFAULT_TENANT, AccountSpec
from paceline.model.errors import InvalidError, Problem
from paceline.model.messages import NOBODY, FlowKey, NewMessage, lane_key
from paceline.model.states import State

MAX_CONTENT = 24 * 1024 * 1024
NORMAL = 5
_PENDING, _SCHEDULED = int(State.PENDING), int(State.SCHEDULED)

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A message that passed every check, and its flow."""

    row: NewMessage
    flow: FlowKey


class Intake:
    """Checks bodies against the configuration in force. Makes no I/O and changes nothing."""

    def __init__(
        self,
        directory: Directory,
        next_id: Callable[[int], int],
        check_url: Callable[[str], str | None],
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """`check_url` tells what is wrong with an address that a call-back would go to.

        `ahead` tells by how many milliseconds the wall clock is ahead of the clock that decides.
        """
        self._ahead = ahead
        self.directory = directory
        self.next_id = next_id
        self.check_url = check_url
        self._numbers: dict[FlowKey, int] = {}

    def prepare(self, body: Mapping[str, Any], tenant: str, now: int, batch: int | None = None) -> Prepared:
        """Check one body.

        Raises:
            InvalidError: with every problem found, each naming its field.
        """
        channel = self._channel(body)
        fields = read_fields(body, channel.bodies)
        problems, get = fields.problems, fields.values.get
        to = self._complete(body, fields, channel, tenant)
        account = self._account(fields, channel, tenant)
        pool, lane = self._lane(fields, channel, account, tenant)
        queue = get("queue") or self._queue_of(channel, get("kind"))
        spec = self.directory.queue(queue)
        campaign = get("campaign")
        key = FlowKey(
            lane, tenant, campaign or "", queue, get("priority", NORMAL), account.id if account else NOBODY
        )
        wall = now + self._ahead()
        due_at, expires_at = _times(fields, wall)
        state = _PENDING if due_at <= wall else _SCHEDULED
        if state == _PENDING:
            due_at = now  # in line all are ordered by the clock that decides
        content = _encode(fields.content).decode()
        callback_url = body.get("callback_url")
        if callback_url is not None:
            self._check_callback(callback_url, problems)
        if len(content) > MAX_CONTENT:
            problems.append(Problem("", f"the message is larger than {MAX_CONTENT // 1024 // 1024} MiB"))
        if problems:
            raise InvalidError(problems)
        id_ = self.next_id(now)
        # By position: naming two dozen fields costs more than all the checks of a message.
        row = NewMessage(
            id_, self.flow_number(key), state, due_at, due_at, now, expires_at,
            tenant, queue, channel.name, key.account, pool, to[0] if len(to) == 1 else ", ".join(to), key.priority,
            get("max_attempts") or spec.max_attempts, get("timeout") or spec.timeout_ms, content, f"{id_:032x}",
            get("backoff"), get("group"), get("source"), get("kind"), campaign, batch, get("metadata"), callback_url,
        )  # fmt: skip
        if "idempotency_key" in fields.values:
            row.idempotency_key = fields.values["idempotency_key"]
            row.fingerprint = fingerprint(body)
        return Prepared(row, key)

    def flow_number(self, key: FlowKey) -> int:
        """The number of a flow, remembered because making it costs a hash."""
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) > 500_000:
                self._numbers.clear()
            number = self._numbers[key] = key.number
        return number

    def _channel(self, body: Mapping[str, Any]) -> Channel:
        name = body.get("channel")
        channel = self.directory.channels.get(name) if isinstance(name, str) else None
        if channel is not None:
            return channel
        known = sorted(self.directory.channels)
        if name is None:
            raise InvalidError([Problem("/channel", f"is missing; one of {', '.join(known)}")])
        hint = checks.suggestion(str(name), known) or f"; one of {', '.join(known)}"
        raise InvalidError([Problem("/channel", "there is no such channel" + hint)])

    def _complete(
        self, body: Mapping[str, Any], fields: Fields, channel: Channel, tenant: str
    ) -> tuple[str, ...]:
        """Fill in the template, then let the channel look at recipients and body."""
        problems, content = fields.problems, fields.content
        to: tuple[str, ...] = fields.values.get("to", ())
        many = isinstance(body.get("to"), list)
        if many and not channel.many_recipients:
            problems.append(Problem("/to", "must be one recipient; a list is only for e-mail"))
        if "template" in fields.values:
            self._fill(fields, tenant)
        elif "variables" in fields.values:
            problems.append(Problem("/variables", "only goes with a template"))
        if problems:
            return to
        if channel.body_required and channel.body_required.isdisjoint(content):
            names = " or ".join(sorted(channel.body_required))
            problems.append(Problem("", f"the message has no body: give {names}, or a template"))
        else:
            problems.extend(channel.check(to, content))
        if many:
            content["to"] = list(to)
        return to

    def _fill(self, fields: Fields, tenant: str) -> None:
        name = fields.values["template"]
        template = self.directory.templates.get((tenant, name))
        if template is None:
            near = checks.suggestion(name, [n for t, n in self.directory.templates if t == tenant])
            fields.problems.append(Problem("/template", f"there is no template '{name}'{near}"))
            return
        try:
            fields.content.update(render(template, fields.values.get("variables", {})))
        except ValueError as error:
            fields.problems.append(Problem("/variables", str(error)))

    def _account(self, fields: Fields, channel: Channel, tenant: str) -> AccountSpec | None:
        name = fields.values.get("account")
        if name is None:
            return None
        account = self.directory.find_account(tenant, name)
        if account is None:
            near = checks.suggestion(name, self.directory.account_names(tenant, channel.name))
            fields.problems.append(Problem("/account", f"there is no account '{name}'{near}"))
        elif account.channel != channel.name:
            text = f"'{name}' is an account of channel {account.channel}, not {channel.name}"
            fields.problems.append(Problem("/account", text))
        return account

    def _lane(
        self, fields: Fields, channel: Channel, account: AccountSpec | None, tenant: str
    ) -> tuple[str, str]:
        pool = fields.values.get("pool")
        if account is not None:
            if pool is not None and pool != account.pool:
                fields.problems.append(
                    Problem("/pool", f"account '{account.name}' is in pool '{account.pool}'")
                )
            return account.pool, account.lane
        wanted = pool or DEFAULT_POOL
        own = lane_key(tenant, channel.name, wanted)
        if own in self.directory.lanes:
            return wanted, own
        common = lane_key(DEFAULT_TENANT, channel.name, wanted)
        if self.directory.is_shared(common):
            return wanted, common
        if "account" not in fields.values:
            text = (
                f"there is no account of channel {channel.name} in pool '{wanted}'; "
                "create one with PUT /api/v1/accounts/NAME"
            )
            fields.problems.append(Problem("/pool" if pool else "/account", text))
        return wanted, own

    def _queue_of(self, channel: Channel, kind: str | None) -> str:
        # A job goes to the queue of its kind where there is one: a handler is registered under that name.
        if not channel.needs_account and kind is not None and kind in self.directory.queues:
            return kind
        return channel.default_queue

    def _check_callback(self, value: object, problems: list[Problem]) -> None:
        try:
            wrong = self.check_url(checks.check_label(value, MAX_URL))
        except ValueError as error:
            wrong = str(error)
        if wrong:
            problems.append(Problem("/callback_url", wrong))


def _times(fields: Fields, wall: int) -> tuple[int, int | None]:
    """When it is due, and when it is worthless, both by the wall clock."""
    get, problems = fields.values.get, fields.problems
    scheduled, delay, expires = get("scheduled_at"), get("delay"), get("expires_at")
    if scheduled is not None and delay is not None:
        problems.append(Problem("/delay", "give either scheduled_at or delay, not both"))
    if scheduled is not None and scheduled < wall - checks.PAST_GRACE_MS:
        problems.append(Problem("/scheduled_at", "is in the past; leave it out to send now"))
    due: int = wall + delay if delay is not None else max(wall, scheduled or wall)
    if expires is not None and expires <= wall:
        problems.append(Problem("/expires_at", "is in the past: the message would never be sent"))
    elif expires is not None and expires <= due:
        problems.append(Problem("/expires_at", "is not after the moment the message is scheduled for"))
    return due, expires


def fingerprint(body: Mapping[str, Any]) -> str:
    """The same for two bodies that say the same, whatever the order of their members."""
    same = {name: value for name, value in body.items() if name != "idempotency_key"}
    return blake2b(_encode_sorted(same), digest_size=12).hexdigest()
