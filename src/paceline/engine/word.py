"""What other nodes stored for lanes that this one decides about: brought into the lanes as if it had come in here."""

from typing import Final

from paceline.engine.core import Core
from paceline.model.nodes import Wake
from paceline.stores.base import FlowAfter

PAGE: Final = 500


async def hear(core: Core, wake: Wake) -> None:
    """Offer the messages that this word is about.

    Some of them may have their place before what is in memory already, if only by a millisecond: so they are read from
    their first place on, up to where the flow reads on by itself.
    """
    if wake.due_at is not None:
        core.upkeep.scheduled_at(wake.due_at)
        core.upkeep.due_at(wake.due_at)
    if wake.expires_at is not None:
        core.upkeep.expires_at(wake.expires_at)
    await core.know([wake.flow])
    key = core.gates.keys.get(wake.flow)
    if key is None or not core.owns(wake.flow):
        return
    lane = core.agenda.lanes.get(key.lane)
    flow = lane.flows.get(wake.flow) if lane is not None else None
    core.dispatcher.pending[wake.flow] += wake.many
    if flow is None:
        core.agenda.known(wake.flow, key)
        core.dispatcher.wake()
        return
    turn, id_ = wake.turn, wake.id - 1
    while True:
        (part,) = await core.store.entries([FlowAfter(wake.flow, turn, id_, PAGE)])
        if not core.owns(wake.flow):
            return
        for entry in part.entries:
            if entry.id not in core.agenda.out:
                core.agenda.offer(wake.flow, key, entry)
        core.dispatcher.wake()
        if not part.more:
            return
        turn, id_ = part.entries[-1].turn, part.entries[-1].id
        if (turn, id_) > core.agenda.flow(wake.flow, key).cursor:
            return  # it has more in the store than in memory, and reads on from there
