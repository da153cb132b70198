"""Checks of the outboxes that this server relays."""

import asyncio
from collections.abc import Sequence

from paceline.engine.doctor_findings import Patient, Said, failed, few, passed, warned
from paceline.engine.relay import Relay
from paceline.model.errors import PacelineError

LATE_MS = 60_000
"""A row that waits so long while its relay works is not being taken."""


async def outboxes(patient: Patient) -> Said:
    """Each can be read, nothing in it was refused, and nothing lies there for long."""
    relays: Sequence[Relay] = patient.relays
    if not relays:
        return passed("there are none")
    found = await asyncio.gather(*(_of(relay, patient) for relay in relays))
    for status in ("fail", "warn"):
        worst = [(said, relay) for said, relay in zip(found, relays, strict=True) if said.status == status]
        if worst:
            text = few(f"{relay.place.name}: {said.detail}" for said, relay in worst)
            return failed(text, worst[0][0].advice) if status == "fail" else warned(text, worst[0][0].advice)
    return passed(f"{len(relays)} relayed, {sum(relay.taken for relay in relays):,} messages taken")


async def _of(relay: Relay, patient: Patient) -> Said:
    if not relay.is_here:
        return passed("another node relays it")
    if relay.away:
        return failed(
            relay.away,
            "It goes on by itself once that is mended. Until it was read once since the start, nothing that has "
            "ended is cleaned.",
        )
    try:
        facts = await relay.desk.facts()
    except PacelineError as error:
        return warned(str(error), "The relay goes on; ask again.")
    if facts.refused:
        return warned(
            f"{facts.refused:,} rows were refused",
            "See why with: paceline outbox list --refused; mend it, then: paceline outbox retry or discard",
        )
    now = patient.core.clock.now() + patient.core.clock.ahead()
    if facts.oldest is not None and now - facts.oldest > LATE_MS:
        return warned(
            f"{facts.waiting:,} rows wait, the first for {(now - facts.oldest) // 1000:,} s",
            "See the server's log; the store may be unable to write.",
        )
    return passed(f"{facts.waiting:,} rows wait")
