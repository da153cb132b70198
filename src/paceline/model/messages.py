"""The records that travel between intake, lanes and stores. All times are milliseconds since 1970, UTC."""

from hashlib import blake2b

import msgspec

from paceline.model.nodes import PARTITIONS, partition_of

NOBODY = ""
"""In place of an account: the message is pinned to none, or nobody has sent it yet."""


class FlowKey(msgspec.Struct, frozen=True, array_like=True):
    """What makes messages one flow: first in, first out among themselves, taking turns with other flows.

    `lane` is the lane's key (`lane_key`); `account` is the pinned account, or NOBODY.
    """

    lane: str
    tenant: str
    campaign: str
    queue: str
    priority: int
    account: str

    @property
    def number(self) -> int:
        """A 63-bit number made from the key alone: every node computes the same one, nobody hands them out.

        Its last digits (to the base of `PARTITIONS`) are the partition of the lane.
        """
        digest = blake2b("\x00".join(map(str, msgspec.structs.astuple(self))).encode(), digest_size=8)
        number = int.from_bytes(digest.digest()) >> 1
        return number - number % PARTITIONS + partition_of(self.lane)


def account_id(owner: str, name: str) -> str:
    """How an account is named inside: the tenant that owns it, and its name there."""
    return f"{owner}/{name}"


def lane_key(owner: str, channel: str, pool: str) -> str:
    """The lane of a pool: `owner` is the tenant whose accounts these are."""
    return f"{owner}/{channel}/{pool}"


class NewMessage(msgspec.Struct, array_like=True, gc=False):
    """A message that passed every check, as one row to add. JSON parts are already text."""

    id: int
    flow: int
    state: int
    due_at: int
    turn: int
    created_at: int
    expires_at: int | None
    tenant: str
    queue: str
    channel: str
    account: str
    pool: str
    recipient: str
    priority: int
    max_attempts: int
    timeout_ms: int
    content: str
    trace_id: str
    backoff: str | None = None
    group: str | None = None
    source: str | None = None
    kind: str | None = None
    campaign: str | None = None
    batch: int | None = None
    metadata: str | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


class Added(msgspec.Struct, array_like=True, gc=False):
    """What became of one added row: `id` is the first message's where the idempotency key was known.

    `fingerprint` is then the first body's, so that a different body under the same key can be refused.
    """

    id: int
    duplicate: bool = False
    fingerprint: str | None = None


class Entry(msgspec.Struct, array_like=True, gc=False):
    """A due message as a lane sees it: only what decisions need. `turn` then `id` is its place in its flow."""

    turn: int
    id: int
    expires_at: int | None
    recipient: str
    group: str | None


class Mark(msgspec.Struct, array_like=True, gc=False):
    """A hand-over to make durable: this message, still pending in this flow, goes to `account`."""

    id: int
    flow: int
    account: str
    started: int


class HandedOver(msgspec.Struct, array_like=True, gc=False):
    """A message whose hand-over mark is on disk: now, and not before, it may be sent."""

    id: int
    number: int
    attempts: int
    account: str
    tenant: str
    queue: str
    channel: str
    recipient: str
    kind: str | None
    group: str | None
    content: str
    metadata: str | None
    max_attempts: int
    timeout_ms: int
    backoff: str | None
    trace_id: str
    callback_url: str | None
    created_at: int
    expires_at: int | None
    due_at: int
    turn: int
    flow: int


class Settlement(msgspec.Struct, array_like=True, gc=False):
    """How one hand-over ended. It takes effect only for this message and this hand-over `number`.

    `event` is the arrow of the state machine, `state` where it leads. `attempts` is the new count of
    attempts that counted. `moved_to` replaces the recipient. `outcome` is the outcome's class name.
    """

    id: int
    number: int
    event: str
    state: int
    due_at: int
    turn: int
    attempts: int
    started: int
    finished: int
    outcome: str
    code: str | None = None
    text: str | None = None
    reference: str | None = None
    result: str | None = None
    moved_to: str | None = None


class AccountNote(msgspec.Struct, array_like=True, gc=False):
    """What an outcome says about its account, durable with the settlement that learned it.

    `flood_until`: nothing may be sent on the account (or to `recipient` / in `group`) before this moment;
    a later one wins. `asked_until`: the provider wanted more than is waited; told, not stored. `stopped`: the provider refuses the account; the text says why. None leaves it be,
    and an empty `stopped` clears it.
    """

    account: str
    flood_until: int | None = None
    recipient: str = ""
    group: str = ""
    stopped: str | None = None
    asked_until: int | None = None


class Revision(msgspec.Struct, array_like=True, gc=False):
    """A person's change of one message. Applies only while it is still in `from_state` at `number`.

    `event` is the arrow; `to_state` None deletes the message, and equal to `from_state` changes fields only.
    """

    id: int
    number: int
    from_state: int
    to_state: int | None
    event: str
    due_at: int
    turn: int
    expires_at: int | None
    priority: int
    flow: int
    account: str
    pool: str
    attempts: int
    reason: str = ""
