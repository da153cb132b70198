"""The records that an audit reads from a store. All times are milliseconds since 1970, UTC."""

import msgspec


class Sent(msgspec.Struct, array_like=True, gc=False):
    """A journalled send: whatever was handed to an account and not withheld before its call began."""

    account: str
    message: int
    flow: int
    recipient: str
    group: str | None
    handed_over: int
    started: int
    finished: int
    outcome: str
    code: str | None


class Standing(msgspec.Struct, array_like=True, gc=False):
    """Where a message stands; `created_at` is None when the message itself is missing.

    `ending` is the outcome that was copied to the message when its last journal line was cleaned.
    """

    id: int
    flow: int
    state: int
    number: int
    attempts: int
    due_at: int
    turn: int
    expires_at: int | None
    sender: str
    started_at: int | None
    finished_at: int | None
    created_at: int | None
    channel: str | None
    ending: str | None


class Counted(msgspec.Struct, array_like=True, gc=False):
    """How many messages of (flow, sender, state) are kept as a count, and how many there are."""

    flow: int
    sender: str
    state: int
    kept: int
    there: int


class DayFigures(msgspec.Struct, array_like=True, gc=False):
    """A day's kept figures beside what the journal says; the key is that of `Daily`.

    Of the journal: lines `accepted`, `confirmed`, `denied` and `refused` speak for themselves; `open_` ones
    were a retry, a refusal or neither, and `sure_ms` is the send time of the others, `most_ms` of all of them.
    """

    day: int
    tenant: str
    queue: str
    channel: str
    account: str
    completed: int
    failed: int
    retries: int
    send_ms: int
    accepted: int
    confirmed: int
    denied: int
    refused: int
    open_: int
    sure_ms: int
    most_ms: int


class Leftover(msgspec.Struct, array_like=True):
    """Rows that point to nothing: what they are, how many, and the first ids."""

    what: str
    count: int
    ids: list[int]
