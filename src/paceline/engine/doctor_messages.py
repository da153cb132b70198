"""Checks of messages that do not go on by themselves."""

from collections import Counter

from paceline.engine.counting import by_state, counted
from paceline.engine.doctor_findings import Patient, Said, failed, few, passed, warned
from paceline.engine.keys import SYSTEM
from paceline.engine.suspects import QUARANTINED
from paceline.model.ids import to_text
from paceline.model.states import WAITING, State
from paceline.pacing.flows import Flow
from paceline.pacing.forecast import senders
from paceline.pacing.scopes import channel_of
from paceline.stores.base import Filter

LATE_MS = 60_000
"""How far past its time-out a call, or past its moment a message that may go, counts as stuck."""
MOST = 1000


async def stuck(patient: Patient) -> Said:
    """Calls under way that should have ended long ago."""
    core = patient.core
    rows = await core.store.find(Filter(state=(int(State.PROCESSING),)), None, MOST)
    if not patient.running:
        if not rows:
            return passed("the last process left none")
        return warned(
            f"the last process was killed with {len(rows):,} calls under way",
            "The next start tries them again where that is safe, and tells the others as uncertain.",
        )
    now = core.clock.now()
    late = [
        f"{to_text(row.id)} ({row.channel})"
        for row in rows
        if row.started_at is not None and row.started_at + row.timeout_ms + LATE_MS < now
    ]
    if late:
        advice = "A channel does not keep its time; the log names it. A restart settles these messages."
        return failed(few(late), advice)
    return passed("no call is past its time")


async def overdue(patient: Patient) -> Said:
    """Messages that nothing holds back, and that have not gone."""
    core = patient.core
    now = core.clock.now()
    if not core.dispatcher.running or core.dispatcher.away:
        return passed("nothing is sent now; see scheduler and store")
    late = []
    for lane in core.agenda.lanes.values():
        for flow in lane.flows.values():
            first = flow.ready[0] if flow.ready else None
            if first is None or first.turn > now - LATE_MS or any(g.opens(now) > now for g in flow.gates):
                continue
            if any(account.opens(now) <= now for account in senders(lane, flow)) and not _aside(flow):
                late.append(
                    f"{to_text(first.id)} in {flow.key.queue}, due {(now - first.turn) // 1000:,} s ago"
                )
    if late:
        advice = (
            "Nothing holds them back: send this finding and the log to the developers; a restart sends them."
        )
        return failed(few(late), advice)
    return passed("whatever may go has gone")


def _aside(flow: Flow) -> bool:
    """Single messages may wait for their own recipient, which this check does not look into."""
    return flow.keyed


async def uncertain(patient: Patient) -> Said:
    """Messages that may have been sent."""
    many = by_state(await counted(patient.core, SYSTEM))[State.UNCERTAIN.label]
    if many:
        return warned(
            f"{many:,} wait for a person",
            "Find out at the provider whether they arrived (paceline messages list --state uncertain), then settle "
            "each: POST /api/v1/messages/ID/settle",
        )
    return passed("none")


async def quarantined(patient: Patient) -> Said:
    """Messages that ended the process three times."""
    wanted = Filter(state=(int(State.FAILED),), code=(QUARANTINED,))
    rows = await patient.core.store.find(wanted, None, MOST)
    if not rows:
        return passed("none")
    kinds = Counter(f"{row.channel} {row.kind or ''}".strip() for row in rows)
    named = few(f"{count:,} of {kind}" for kind, count in kinds.most_common())
    return warned(
        f"set aside because the process ended three times while they were sent: {named}",
        "See what they do to the process (paceline messages list --code quarantined), then: paceline messages retry ID",
    )


async def orphans(patient: Patient) -> Said:
    """Waiting messages that no account can send."""
    core = patient.core
    held: Counter[str] = Counter()
    for each in await counted(core, SYSTEM):
        if each.state not in WAITING:
            continue
        account, lane = each.key.account, each.key.lane
        if account and account not in core.directory.accounts:
            held[f"account {account}"] += each.count
        elif lane not in core.directory.lanes:
            held[f"pool {lane}"] += each.count
    if held:
        return warned(
            few(f"{count:,} for {what}" for what, count in sorted(held.items())),
            "They are held. Put the account back, or move them: PATCH /api/v1/messages/ID with another account.",
        )
    return passed("every message has its account")


async def missing(patient: Patient) -> Said:
    """Waiting messages whose channel or function this process lacks."""
    core = patient.core
    held: Counter[str] = Counter()
    for each in await counted(core, SYSTEM):
        channel = channel_of(each.key)
        if each.state in WAITING and channel not in core.directory.channels:
            held[f"channel {channel}"] += each.count
    rows = await core.store.find(Filter(code=("no-handler",), state=(int(State.RETRYING),)), None, MOST)
    held.update(f"the function of kind {row.kind!r}" for row in rows)
    if held:
        return warned(
            "held for " + few(f"{what} ({count:,})" for what, count in sorted(held.items())),
            "Start the process that has it, or install the missing plug-in; they are sent then.",
        )
    return passed("this process can send every waiting message")
