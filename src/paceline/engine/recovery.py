"""What is done once, before the first send: settle what a crash left open, and rebuild every gate's history."""

import msgspec
import structlog

from paceline.clock import Clock
from paceline.engine.directory import Directory
from paceline.engine.gates import Gates
from paceline.model.ids import to_text
from paceline.model.messages import HandedOver, Settlement
from paceline.model.states import Event, State, after
from paceline.pacing.agenda import Agenda
from paceline.stores.base import Store

SLICE = 1000

log = structlog.get_logger("paceline.recovery")


class Recovered(msgspec.Struct):
    """What recovery found."""

    again: int = 0
    uncertain: int = 0
    given_up: int = 0
    clock_moved_ms: int = 0


async def settle_open(store: Store, directory: Directory, clock: Clock) -> Recovered:
    """End the hand-overs of the last process: those messages may have gone out, and nobody learnt the answer."""
    found = Recovered()
    open_ = await store.processing()
    for start in range(0, len(open_), SLICE):
        now = clock.ceiling()
        made = [_settlement(message, directory, now, found) for message in open_[start : start + SLICE]]
        await store.settle(made, (), (), (), now)
    if open_:
        log.warning("messages were under way when the last process ended", **msgspec.structs.asdict(found))
    return found


def _settlement(message: HandedOver, directory: Directory, now: int, found: Recovered) -> Settlement:
    channel = directory.channels.get(message.channel)
    attempts = message.attempts + 1
    if channel is None or not channel.repeat_is_safe:
        event = Event.LOSE
        found.uncertain += 1
    elif attempts >= message.max_attempts:
        event = Event.REFUSE
        found.given_up += 1
    else:
        event = Event.GIVE_BACK
        found.again += 1
    log.info("settled after a crash", message=to_text(message.id), step=event.value)
    return Settlement(
        id=message.id, number=message.number, event=event.value, state=after(State.PROCESSING, event),
        due_at=message.due_at, turn=message.turn, attempts=attempts, started=now, finished=now,
        outcome="Unknown", code="crash", text="the process ended before the provider's answer was known",
    )  # fmt: skip


async def restore_gates(store: Store, agenda: Agenda, directory: Directory, gates: Gates) -> None:
    """Bring back every account's windows, waits and stops, every wide limit, and every flow that has work."""
    gates.keys.update(await store.flow_keys())
    specs = list(directory.accounts.values())
    gates.shut_all(specs)
    await gates.restore(specs)
    for rule in directory.rules.values():
        agenda.set_rule(rule)
    await gates.restore_rules(list(directory.rules.values()))
    for queue in directory.queues.values():
        gates.set_queue(queue)
    for note in await gates.restore_waits(specs):
        gate = gates.account(note.account)
        if gate is not None and note.stopped:
            gate.stopped = note.stopped
    for flow in await store.flows():
        agenda.known(flow.number, flow.key)
