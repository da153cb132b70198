"""Checks of the nodes that share a store: who is there, who fell silent, and whether everything is somebody's.

They go by what the store has, at its own time: so they tell the same whichever node is asked, or none.
"""

from collections import Counter
from typing import Final

from paceline.engine.doctor_findings import Patient, Said, failed, few, passed, warned
from paceline.model.checks import print_time
from paceline.model.nodes import Known, Roll

PATIENCE_MS: Final = 10_000
"""How long the others may take to follow a node whose lease ran out, and to take what is nobody's: they need about one second."""
CLOCK_MS: Final = 1_000
"""The most by which the clocks of a well kept machine and of the database's are apart."""
LOOK_BACK_MS: Final = 86_400_000
OFTEN: Final = 3
"""So many lost leases on one machine within a day are no accident any more."""
LATE_PART: Final = 2 / 3
"""A lease is renewed each third of it: who has let two of them pass is late."""


async def nodes(patient: Patient) -> Said:
    """Somebody takes messages, and somebody sends."""
    roll = await _roll(patient)
    there = [node for node in _living(roll) if node.late_ms(roll.now) <= 0]
    roles = Counter(node.role for node in there)
    words = ", ".join(f"{count:,} of the role {role}" for role, count in sorted(roles.items()))
    if not there:
        return warned("none runs: nothing is taken and nothing is sent", "Start one: paceline up")
    if not any(node.sends for node in there):
        return failed(
            f"{words}: none of them sends, and everything waits",
            "Start one that does: paceline up --role all (or sender)",
        )
    if set(roles) == {"sender"}:
        return warned(
            f"{words}: none of them takes messages",
            "Start one that does: paceline up --role all (or api)",
        )
    return passed(words)


async def silent(patient: Patient) -> Said:
    """Nodes whose lease ended, and whose work nobody took."""
    roll = await _roll(patient)
    left = [node for node in _living(roll) if node.late_ms(roll.now) > PATIENCE_MS]
    if not left:
        return passed("whoever fell silent was followed")
    others = any(node.sends and node.late_ms(roll.now) <= 0 for node in _living(roll))
    text = few(
        f"{_who(node)} was last heard at {print_time(node.heartbeat_at)} and still has {node.partitions} partitions"
        f" and {node.calls:,} calls"
        for node in left
    )
    if not others:
        return failed(
            f"{text}; no node that sends is there to follow",
            "Start one that sends: it follows at once. What was under way is then treated as after a crash.",
        )
    advice = (
        "See the log of the others for 'could not look at the other nodes'; a commit of the silent one may hold its "
        "row: end its connections in the server (pg_stat_activity, 'paceline ... writer')."
    )
    if any(node.partitions for node in left):
        return failed(f"{text}; nobody followed", advice)
    return warned(f"{text}; nobody ended it", advice)


async def partitions(patient: Patient) -> Said:
    """What is nobody's for long is not sent."""
    roll = await _roll(patient)
    if not roll.free:
        return passed("all are somebody's")
    senders = [node for node in _living(roll) if node.sends and node.late_ms(roll.now) <= 0]
    if not senders:
        return passed(f"{roll.free} are nobody's, as nobody sends")  # which `nodes` tells
    # They are freed when a node ends, and by nothing else.
    ends = [node.ended_at for node in roll.nodes if node.ended_at is not None]
    since = max([*ends, min(node.started_at for node in senders)])
    text = f"{roll.free} are nobody's since {print_time(since)}"
    if roll.now - since <= PATIENCE_MS:
        return warned(text, "They are taken within seconds; ask again.")
    return failed(
        f"{text}: what waits there is not sent",
        "See the log of the nodes that send for 'could not look at the other nodes', and restart those.",
    )


async def suspect(patient: Patient) -> Said:
    """Nodes that are late with their lease, or that lost it often."""
    roll = await _roll(patient)
    late = [
        f"{_who(node)} has not been heard for {(roll.now - node.heartbeat_at) / 1000:.1f} s of its lease of "
        f"{(node.lease_ends_at - node.heartbeat_at) / 1000:g} s"
        for node in _living(roll)
        if node.late_ms(roll.now) <= PATIENCE_MS
        and roll.now - node.heartbeat_at > LATE_PART * (node.lease_ends_at - node.heartbeat_at)
    ]
    lost = Counter(
        node.name for node in roll.nodes if node.ended_at is not None and node.ended_at >= node.lease_ends_at
    )
    often = [
        f"nodes on {name} lost their lease {count:,} times in a day"
        for name, count in lost.items()
        if count >= OFTEN
    ]
    if late or often:
        return warned(
            few([*late, *often]),
            "Such a machine stops for seconds or is cut off from the database: see its processor, memory and network, "
            "or give nodes a longer lease (--set lease=15s).",
        )
    return passed("all renew their leases in time")


async def clocks(patient: Patient) -> Said:
    """Clocks that are apart make limits wait longer than they need."""
    roll = await _roll(patient)
    apart = [node for node in _living(roll) if node.off > CLOCK_MS]
    if apart:
        text = few(f"that of {_who(node)} by up to {node.off / 1000:.1f} s" for node in apart)
        return warned(
            f"apart from the database's since they started: {text}",
            "Limits are kept, and sending after a change of nodes is later by as much. Let a time service keep the clocks "
            "of all machines and of the database's, then restart these nodes.",
        )
    most = max((node.off for node in _living(roll)), default=0)
    return passed(f"at most {most:,} ms apart from the database's")


async def versions(patient: Patient) -> Said:
    """Nodes of several versions are for the time of an upgrade."""
    living = [node for node in _living(await _roll(patient)) if node.program]
    newest = max((node.program for node in living), default=0)
    old = [node for node in living if node.program < newest]
    if old:
        text = few(f"{_who(node)} (knows schema {node.program})" for node in old)
        return warned(
            f"older than others, which know schema {newest}: {text}",
            "Finish the upgrade: restart these with the new version.",
        )
    return passed("all nodes know the same schema")


async def _roll(patient: Patient) -> Roll:
    store = patient.core.store.nodes
    if store is None:  # such a store has none of these checks
        return Roll((), 0, patient.core.clock.now())
    return await store.roll(LOOK_BACK_MS)


def _living(roll: Roll) -> list[Known]:
    return [node for node in roll.nodes if node.ended_at is None]


def _who(node: Known) -> str:
    return f"process {node.process} on {node.name} (role {node.role})"
