"""What can be read from the simulated disk; each answer is made of new objects, as one from a file would be."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from paceline.model.ids import first_of
from paceline.model.messages import AccountNote, HandedOver
from paceline.stores.base import (
    Attempt,
    Daily,
    Filter,
    FlowAfter,
    FlowPart,
    FlowState,
    Occupancy,
    StoredMessage,
    Tally,
)
from tests.simulation.tables import DAY_MS, ENDED, PROCESSING, Kept, Line, Tables

_DIRECT = ("tenant", "queue", "channel", "campaign", "batch", "group", "source", "kind")


def stored(tables: Tables, kept: Kept) -> StoredMessage:
    """The message in full."""
    row = kept.row
    line = next((each for each in tables.journal.get(row.id, ()) if each.number == kept.number), None)
    if line is None and kept.state != PROCESSING:
        line = kept.ending
    return StoredMessage(
        row.id, kept.flow, kept.state, kept.number, kept.attempts, kept.due_at, kept.turn, row.created_at,
        kept.started_at, kept.finished_at, kept.expires_at, row.tenant, row.queue, row.channel, kept.account,
        kept.sender, kept.pool, kept.recipient, kept.priority, row.max_attempts, row.timeout_ms, row.content,
        row.trace_id, row.backoff, row.group, row.source, row.kind, row.campaign, row.batch, row.metadata,
        row.callback_url, row.idempotency_key,
        line.outcome if line else None, line.code if line else None, line.text if line else None,
        line.reference if line else None, kept.result,
    )  # fmt: skip


def get(tables: Tables, ids: Sequence[int]) -> list[StoredMessage]:
    """In the order asked."""
    return [stored(tables, kept) for id_ in ids if (kept := tables.messages.get(id_)) is not None]


def entries(tables: Tables, requests: Sequence[FlowAfter]) -> list[FlowPart]:
    """The next pending entries of each flow."""
    parts = []
    for request in requests:
        line = tables.pending.get(request.flow, [])
        behind = [place for place in line if place > (request.turn, request.id)]
        found = [tables.messages[id_].entry for _, id_ in behind[: request.limit]]
        parts.append(FlowPart(request.flow, found, len(behind) > request.limit))
    return parts


def flows(tables: Tables) -> list[FlowState]:
    """Flows with pending messages."""
    return [FlowState(n, tables.flows[n], len(line)) for n, line in sorted(tables.pending.items()) if line]


def processing(tables: Tables) -> list[HandedOver]:
    """Hand-overs without an ending."""
    found = [kept for kept in tables.messages.values() if kept.state == PROCESSING]
    return [kept.handed_over(kept.sender) for kept in sorted(found, key=lambda kept: kept.row.id)]


def occupancy(tables: Tables, since: int, accounts: Sequence[tuple[str, int]] | None) -> list[Occupancy]:
    """Journalled sends."""
    wanted = [(account, -1) for account in sorted(tables.by_account)] if accounts is None else accounts
    by_newest: defaultdict[int, list[str]] = defaultdict(list)
    for account, newest in wanted:
        by_newest[newest].append(account)
    found = []
    for newest, names in by_newest.items():
        for name in names:
            lines = [
                line
                for line in tables.by_account.get(name, ())
                if line.finished > since and line.outcome != "Withheld"
            ]
            for line in lines[-newest:] if newest > 0 else lines:
                spent = line.outcome in ("Accepted", "Unknown")
                found.append(
                    Occupancy(line.flow, line.account, line.recipient, line.group, line.finished, spent)
                )
    return found


def attempts(tables: Tables, ids: Sequence[int]) -> list[Attempt]:
    """Journal lines, and the hand-over under way."""
    found = []
    for id_ in ids:
        for line in sorted(tables.journal.get(id_, ()), key=lambda each: each.number):
            found.append(
                Attempt(
                    id_, line.number, line.flow, line.account, line.handed_over, line.started, line.finished,
                    line.outcome, line.code, line.text, line.reference,
                )
            )  # fmt: skip
        kept = tables.messages.get(id_)
        if kept is not None and kept.state == PROCESSING:
            handed_over = kept.started_at or 0
            found.append(
                Attempt(
                    id_, kept.number, kept.flow, kept.sender, handed_over, None, None, None, None, None, None
                )
            )
    return found


def notes(tables: Tables) -> list[AccountNote]:
    """Notes of accounts."""
    return [
        AccountNote(note.account, note.flood_until, note.recipient, note.group, note.stopped or None)
        for _, note in sorted(tables.notes.items())
    ]


def tallies(tables: Tables) -> list[Tally]:
    """Counts by flow, sender and state."""
    counts = Counter((kept.flow, kept.sender, kept.state) for kept in tables.messages.values())
    return [Tally(*key, count) for key, count in counts.items()]


def daily(tables: Tables, days: Sequence[int]) -> list[Daily]:
    """Settled work."""
    sums: defaultdict[tuple[int, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for (day, tenant, queue, channel, account, which), count in tables.work.items():
        for shown in {day, 0} & set(days):
            sums[shown, tenant, queue, channel, account][which] += count
    return [Daily(*key, *figures) for key, figures in sorted(sums.items()) if key[0] in days]


def matching(tables: Tables, wanted: Filter, before: int | None = None) -> Iterator[Kept]:
    """Newest first."""
    for id_ in sorted(tables.messages, reverse=True):
        kept = tables.messages[id_]
        if (before is None or id_ < before) and _matches(kept, wanted):
            yield kept


def _matches(kept: Kept, wanted: Filter) -> bool:
    row = kept.row
    for name in _DIRECT:
        values = getattr(wanted, name)
        if values and getattr(row, name) not in values:
            return False
    for values, value in (
        (wanted.account, kept.account or kept.sender), (wanted.pool, kept.pool), (wanted.state, kept.state),
        (wanted.to, kept.recipient), (wanted.priority, kept.priority), (wanted.ids, row.id),
    ):  # fmt: skip
        if values and value not in values:
            return False
    first, last = wanted.created_from, wanted.created_to
    if first is not None and (row.created_at < first or row.id < first_of(max(0, first))):
        return False
    if last is not None and (row.created_at >= last or row.id >= first_of(max(0, last) + DAY_MS)):
        return False
    texts = (kept.recipient, row.content, row.metadata or "")
    return wanted.q is None or any(_lower(wanted.q) in _lower(text) for text in texts)


def _lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def cleanable(
    tables: Tables, wanted: Filter, finished_before: int | None, keep: int | None, most: int
) -> list[int]:
    """Ended messages that match, the oldest first."""
    states = tuple(state for state in ENDED if not wanted.state or state in wanted.state)
    if not states:
        return []
    found = list(matching(tables, msgspec.structs.replace(wanted, state=states)))
    if keep is not None:
        most = min(most, len(found) - keep)
    if finished_before is not None:
        bound = first_of(finished_before)
        found = [k for k in found if (k.finished_at or 0) < finished_before and k.row.id < bound]
    return [kept.row.id for kept in found[::-1][: max(0, most)]]


def old_lines(tables: Tables, finished_before: int, most: int) -> list[Line]:
    """Journal lines that nobody waits for."""
    found = []
    bound = first_of(max(0, finished_before))
    for id_ in sorted(tables.journal):
        kept = tables.messages.get(id_)
        if id_ < bound and (kept is None or kept.state in ENDED):
            lines = sorted(tables.journal[id_], key=lambda each: each.number)
            found += [line for line in lines if line.finished < finished_before]
    return found[:most]
