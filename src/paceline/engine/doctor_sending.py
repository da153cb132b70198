"""Checks of what sends: the scheduler, the accounts, their limits, their providers."""

import asyncio
from collections.abc import Iterator

from paceline.channels.base import SendingAccount
from paceline.engine import installation
from paceline.engine.doctor_findings import Patient, Said, failed, few, passed, warned
from paceline.model.accounts import AccountSpec
from paceline.model.checks import print_time
from paceline.model.limits import Limit
from paceline.model.outcomes import Accepted

REACH_S = 3.0
"""Seconds for all providers together: each is asked at the same time."""
MOST_ASKED = 200
MEASURED_LEAST = 20
"""Sends before their duration says anything."""
DAY_MS = 86_400_000


async def scheduler(patient: Patient) -> Said:
    """Whether anything is released at all."""
    if patient.core.dispatcher.running:
        return passed("messages are released")
    return failed("it is stopped: nothing is sent", "Start it: POST /api/v1/scheduler/start")


async def hold(patient: Patient) -> Said:
    """Whether everything is held back, and why."""
    found = installation.read(await patient.core.store.documents(installation.KIND)).hold
    if found is None:
        return passed("nothing is held back")
    advice = "Look at what waits, then: paceline release (--cancel-before TIME cancels what was due before)"
    return failed(f"everything is on hold: {found.text}", advice)


async def refused(patient: Patient) -> Said:
    """Accounts that their provider refused."""
    gates = ((id_, patient.core.gates.account(id_)) for id_ in patient.core.directory.accounts)
    stopped = [f"{id_} ({gate.stopped[:120]})" for id_, gate in gates if gate is not None and gate.stopped]
    if stopped:
        advice = "Mend the credentials or the account, then: paceline accounts resume NAME"
        return failed(few(stopped), advice)
    return passed("no account was refused by its provider")


async def flooded(patient: Patient) -> Said:
    """Accounts whose provider asked to wait."""
    now = patient.core.clock.now()
    gates = ((id_, patient.core.gates.account(id_)) for id_ in patient.core.directory.accounts)
    waiting = [
        f"{id_} until {print_time(gate.blocked_until)}"
        for id_, gate in gates
        if gate is not None and not gate.stopped and gate.blocked_until > now
    ]
    if waiting:
        advice = "They go on by themselves. If it happens often, give these accounts narrower limits."
        return warned(few(waiting), advice)
    return passed("no provider asked to wait")


async def down(patient: Patient) -> Said:
    """Accounts that rest because their provider is down."""
    gates = ((id_, patient.core.gates.account(id_)) for id_ in patient.core.directory.accounts)
    found = [
        f"{id_} ({gate.circuit.code})"
        for id_, gate in gates
        if gate is not None and gate.circuit is not None and gate.circuit.is_probing
    ]
    if found:
        advice = "They go on by themselves once it is back; if the address is wrong, correct the account's settings."
        return warned(few(found), advice)
    return passed("no provider was found down")


async def paused(patient: Patient) -> Said:
    """Queues and accounts that a person paused."""
    directory = patient.core.directory
    names = [f"queue {spec.name}" for spec in directory.queues.values() if spec.paused]
    names += [f"account {spec.name}" for spec in directory.accounts.values() if spec.paused]
    if names:
        return warned(
            few(sorted(names)), "Resume: paceline queues resume NAME, paceline accounts resume NAME"
        )
    return passed("none")


async def limits(patient: Patient) -> Said:
    """Limits of an account that can never matter, because another one is always narrower."""
    found = [
        f"{spec.id}: {text}"
        for spec in patient.core.directory.accounts.values()
        for text in idle_limits(spec)
    ]
    if found:
        return warned(few(found), "Remove the one that never matters, or correct the other.")
    return passed("none stands in another's shadow")


def idle_limits(spec: AccountSpec) -> Iterator[str]:
    """A sentence for each limit or quota that is never reached."""
    known = sorted(set(spec.limits), key=lambda limit: limit.span_ms)
    for limit in known:
        for other in known:
            if other is not limit and most_in(other, limit.span_ms) <= limit.maximum:
                yield f"{limit} is never reached beside {other}"
                break
        else:
            if spec.interval_ms and -(-limit.span_ms // spec.interval_ms) <= limit.maximum:
                yield f"{limit} is never reached with one message each {spec.interval_ms / 1000:g} s"
    if spec.quota is not None and spec.quota.day is not None:
        for limit in known:
            if most_in(limit, DAY_MS) < spec.quota.day:
                yield f"{limit} never lets the {spec.quota.day:,} of a day through"
                break


def most_in(limit: Limit, span_ms: int) -> int:
    """The most that a limit lets through in any stretch so long."""
    return limit.maximum * -(-span_ms // limit.span_ms)


async def concurrency(patient: Patient) -> Said:
    """Accounts that cannot use their limits, because a call takes too long for so few at once."""
    core = patient.core
    sends: dict[str, tuple[int, int]] = {}
    for line in await core.store.daily([0]):
        count, total = sends.get(line.account, (0, 0))
        sends[line.account] = (count + line.completed + line.failed + line.retries, total + line.send_ms)
    low = []
    for spec in core.directory.accounts.values():
        count, total = sends.get(spec.id, (0, 0))
        if count < MEASURED_LEAST or not spec.limits or spec.concurrency is None:
            continue
        rate = min(limit.maximum / limit.span_ms for limit in spec.limits)  # a millisecond
        need = rate * total / count
        if need > spec.concurrency:
            low.append(
                f"{spec.id} (a call takes {total / count:.0f} ms: its limits need {need:.1f} at once, it has "
                f"{spec.concurrency})"
            )
    if low:
        return warned(few(low), "Raise it: paceline accounts set NAME --concurrency N")
    return passed("every account can use its limits")


async def reach(patient: Patient) -> Said:
    """Whether each account's provider answers at all. Nothing is sent and nobody signs in."""
    directory = patient.core.directory
    asked = [
        spec for spec in directory.accounts.values() if spec.enabled and spec.channel in directory.channels
    ]

    async def ask(spec: AccountSpec) -> str | None:
        account = SendingAccount(spec.owner, spec.name, spec.settings)
        try:
            async with asyncio.timeout(REACH_S):
                outcome = await directory.channels[spec.channel].reach(account, REACH_S)
        except TimeoutError:
            return f"{spec.id} (no answer within {REACH_S:g} s)"
        if outcome is None or isinstance(outcome, Accepted):
            return None
        return f"{spec.id} ({getattr(outcome, 'text', '')[:120]})"

    found = [text for text in await asyncio.gather(*(ask(spec) for spec in asked[:MOST_ASKED])) if text]
    if found:
        return failed(
            few(found), "Check the address in the account's settings, the network and the firewall."
        )
    left = f"; {len(asked) - MOST_ASKED:,} more were not asked" if len(asked) > MOST_ASKED else ""
    return passed(f"the providers of {min(len(asked), MOST_ASKED):,} accounts answer{left}")


async def blocked(patient: Patient) -> Said:
    """Code that held up everything else."""
    found = patient.core.loop_watch.blocked
    if found:
        worst = sorted(found.values(), key=lambda each: -each.longest_ms)
        return warned(
            few(f"{each.what} ({each.where}) for {each.longest_ms / 1000:.1f} s" for each in worst),
            "Make that function plain instead of async, so that it runs in a thread, or await what it waits for.",
        )
    return passed("nothing held up the event loop")
