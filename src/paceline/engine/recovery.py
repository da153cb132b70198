"""What is done once, before the first send: settle what a crash left open, and rebuild every gate's history."""

from collections.abc import Callable, Collection, Sequence

import msgspec
import structlog

from paceline.clock import Clock
from paceline.engine import revisions
from paceline.engine.directory import Directory
from paceline.engine.gates import Gates
from paceline.engine.suspects import (
    APART_FROM,
    CRASH,
    MOST_CRASHES,
    QUARANTINED,
    TEXT,
    crashes_of,
    known_suspects,
    remember,
)
from paceline.model.accounts import AccountSpec
from paceline.model.ids import to_text
from paceline.model.messages import FlowKey, HandedOver, NewMessage, Settlement
from paceline.model.nodes import EVERY_PARTITION, partition_of
from paceline.model.states import Event, State, after
from paceline.pacing.agenda import Agenda
from paceline.stores.base import Filter, FlowState, Store

SLICE = 1000

FollowUp = Callable[[HandedOver, Settlement], tuple[NewMessage, FlowKey] | None]

log = structlog.get_logger("paceline.recovery")


class Recovered(msgspec.Struct):
    """What recovery found."""

    again: int = 0
    uncertain: int = 0
    quarantined: int = 0
    suspects: list[int] = []


async def settle_open(
    store: Store,
    directory: Directory,
    clock: Clock,
    follow_up: FollowUp = lambda _m, _s: None,
    owned: Collection[int] = EVERY_PARTITION,
) -> Recovered:
    """End the hand-overs of whoever had these partitions: those messages may have gone out, and nobody learnt the answer.

    `follow_up` makes the call-back of a message that ends here. The answer's `suspects` are to be tried apart.
    """
    nodes = store.nodes
    found = Recovered(suspects=await known_suspects(store, owned))
    open_ = await (store.processing() if nodes is None else nodes.open_calls(sorted(owned)))
    if not open_:
        return found
    crashes = {id_: n + 1 for id_, n in (await crashes_of(store, [m.id for m in open_])).items()}
    found.suspects += [
        m.id for m in open_ if _may_repeat(m, directory) and APART_FROM <= crashes[m.id] < MOST_CRASHES
    ]
    if found.suspects:
        await remember(
            store, found.suspects, clock.now(), 0 if nodes is None else nodes.slot
        )  # first: who is named there in vain is found innocent
    for start in range(0, len(open_), SLICE):
        now = clock.ceiling()
        part = open_[start : start + SLICE]
        made = [_settlement(message, directory, crashes[message.id], now, found) for message in part]
        told = [f for m, s in zip(part, made, strict=True) if m.callback_url and (f := follow_up(m, s))]
        await store.settle(made, (), [row for row, _ in told], [key for _, key in told], now)
    log.warning(
        "messages were under way when the last process ended",
        again=found.again, uncertain=found.uncertain, quarantined=found.quarantined, suspects=len(found.suspects),
    )  # fmt: skip
    return found


def _may_repeat(message: HandedOver, directory: Directory) -> bool:
    channel = directory.channels.get(message.channel)
    return channel is not None and channel.may_repeat(message.kind)


def _settlement(
    message: HandedOver, directory: Directory, crashes: int, now: int, found: Recovered
) -> Settlement:
    """A crash costs no attempt: whoever else was under way is not to blame. What may not be repeated was one."""
    attempts, code, text = message.attempts, CRASH, TEXT
    if not _may_repeat(message, directory):
        event = Event.LOSE
        attempts += 1
        found.uncertain += 1
    elif crashes >= MOST_CRASHES:
        event, code = Event.REFUSE, QUARANTINED
        text = (
            f"the process ended {crashes} times in the middle of this message's call, so it is not sent again by "
            "itself; see what it does to the process, then retry it"
        )
        found.quarantined += 1
        log.error("quarantined", message=to_text(message.id), channel=message.channel, kind=message.kind)
    else:
        event = Event.GIVE_BACK
        found.again += 1
    log.info("settled after a crash", message=to_text(message.id), step=event.value, crashes=crashes)
    return Settlement(
        id=message.id, number=message.number, event=event.value, state=after(State.PROCESSING, event),
        due_at=message.due_at, turn=message.turn, attempts=attempts, started=now, finished=now,
        outcome="Unknown", code=code, text=text,
    )  # fmt: skip


async def shift_retries(store: Store, ms: int, now: int) -> None:
    """Bring back-offs that earlier runs wrote to today's scale, when the wall clock was moved by `ms` since then."""
    wanted, last = Filter(state=(State.RETRYING,)), None
    while ms and (rows := await store.find(wanted, last, SLICE)):
        await store.revise([revisions.later(row, ms) for row in rows], now)
        last = rows[-1].id


async def restore_gates(
    store: Store, agenda: Agenda, directory: Directory, gates: Gates, owned: Collection[int] = EVERY_PARTITION
) -> None:
    """Bring back every account's windows, waits and stops, every wide limit, and every flow that has work.

    Accounts and flows are those of the partitions `owned`.
    """
    gates.keys.update(await store.flow_keys())
    for rule in directory.rules.values():
        agenda.set_rule(rule)
    for queue in directory.queues.values():
        gates.set_queue(queue)
    await restore_lanes(store, agenda, directory, gates, owned)
    await gates.restore_rules(list(directory.rules.values()))


async def restore_lanes(
    store: Store, agenda: Agenda, directory: Directory, gates: Gates, owned: Collection[int]
) -> list[FlowState]:
    """The same for the lanes of some partitions alone; their flows that have work."""
    specs = [spec for spec in directory.accounts.values() if partition_of(spec.lane) in owned]
    gates.shut_all(specs)
    await restore_notes(gates, specs)  # before any of them opens
    await gates.restore(specs)
    flows = await (store.flows() if store.nodes is None else store.nodes.flows(sorted(owned)))
    for flow in flows:
        gates.keys[flow.number] = flow.key
        agenda.known(flow.number, flow.key)
    return flows


async def restore_notes(gates: Gates, specs: Sequence[AccountSpec]) -> None:
    """Bring back the waits and stops that providers asked for."""
    for note in await gates.restore_waits(specs):
        gate = gates.account(note.account)
        if gate is not None and note.stopped:
            gate.stopped = note.stopped
