"""What becomes of a message when its call has ended: outcome and policy in, one settlement out."""

from collections.abc import Callable
from typing import Any

import msgspec

from paceline.model.backoff import Backoff, Delays, Exponential, Fixed
from paceline.model.durations import format_duration
from paceline.model.messages import AccountNote, HandedOver, Settlement
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Moved,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from paceline.model.states import Event, State, after

FLOOD_WITHOUT_FIGURE_MS = 60_000
HELD_MS = 30_000
"""How soon a message is looked at again that this process could not even try."""
LONGEST_WAIT_MS = 7 * 86_400_000
TEXT_MAX = 2000
"""Characters kept of a provider's own words."""


class Policy(msgspec.Struct, frozen=True):
    """What the settings say about repeating and waiting.

    `flood_ms` is waited where a provider names no figure, `longest_wait_ms` at most where it names an absurd one.
    """

    backoff: Backoff
    repeat_is_safe: bool
    flood_ms: int = FLOOD_WITHOUT_FIGURE_MS
    longest_wait_ms: int = LONGEST_WAIT_MS


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A settlement, what it says about the account, and whether the call uses up quota."""

    settlement: Settlement
    note: AccountNote | None
    spent: bool


def delay(backoff: Backoff, failures: int, chance: Callable[[], float]) -> int:
    """Milliseconds to wait after the `failures`-th failed attempt (from 1)."""
    if isinstance(backoff, Fixed):
        return backoff.delay_ms
    if isinstance(backoff, Delays):
        return backoff.delays_ms[min(failures, len(backoff.delays_ms)) - 1]
    return _exponential(backoff, failures, chance)


def _exponential(backoff: Exponential, failures: int, chance: Callable[[], float]) -> int:
    # Past 60 doublings every sensible maximum is reached; the bound keeps the power finite.
    exact = min(backoff.first_ms * backoff.factor ** min(failures - 1, 60), backoff.max_ms)
    return round(exact * (1 + backoff.jitter * (2 * chance() - 1)))


def settle(
    message: HandedOver,
    outcome: Outcome,
    started: int,
    finished: int,
    policy: Policy,
    chance: Callable[[], float],
) -> Verdict:
    """Decide. `started` and `finished` bound the call in milliseconds; the provider may have acted in between."""
    match outcome:
        case Accepted():
            return accept(message, outcome, started, finished)
        case RateLimited(wait_ms, scope):
            asked = policy.flood_ms if wait_ms is None else wait_ms
            waited = min(asked, policy.longest_wait_ms)
            note = AccountNote(
                message.account,
                finished + waited,
                message.recipient if scope == "recipient" else "",
                (message.group or "") if scope == "group" else "",
            )
            if wait_ms is not None and waited < asked:
                note.asked_until = finished + asked
                outcome = _shortened(outcome, asked, waited)
            if scope == "group" and not message.group:
                note.recipient = message.recipient  # a chat without a group label is its recipient
            return Verdict(_made(message, Event.GIVE_BACK, outcome, started, finished), note, spent=False)
        case Temporary(counts=False):
            return Verdict(_held(message, outcome, started, finished), None, spent=False)
        case Temporary(_, _, wait_ms):
            return Verdict(
                _again(
                    message,
                    outcome,
                    started,
                    finished,
                    policy,
                    chance,
                    min(wait_ms or 0, policy.longest_wait_ms),
                ),
                None,
                spent=False,
            )
        case Permanent():
            made = _made(message, Event.REFUSE, outcome, started, finished, attempts=message.attempts + 1)
            return Verdict(made, None, spent=False)
        case AccountStopped(code, text):
            note = AccountNote(message.account, stopped=f"{code}: {text}"[:TEXT_MAX])
            return Verdict(_made(message, Event.GIVE_BACK, outcome, started, finished), note, spent=False)
        case Moved(to):
            # It counts as an attempt, so that two addresses that point at each other come to an end.
            attempts = message.attempts + 1
            event = Event.GIVE_BACK if attempts < message.max_attempts else Event.REFUSE
            made = _made(message, event, outcome, started, finished, attempts=attempts)
            made.moved_to = to
            return Verdict(made, None, spent=False)
        case Unknown():
            if policy.repeat_is_safe:
                made = _again(message, outcome, started, finished, policy, chance, 0)
            else:
                made = _made(message, Event.LOSE, outcome, started, finished, attempts=message.attempts + 1)
            return Verdict(made, None, spent=True)


_ACCEPT = Event.ACCEPT.value
_COMPLETED = int(after(State.PROCESSING, Event.ACCEPT))


def accept(message: HandedOver, outcome: Accepted, started: int, finished: int) -> Verdict:
    """What `settle` decides of an accepted call: no policy has a say in it."""
    result = outcome.result
    made = Settlement(
        message.id, message.number, _ACCEPT, _COMPLETED, message.due_at, message.turn, message.attempts + 1,
        started, finished, "Accepted", None, None, outcome.reference[:TEXT_MAX] or None,
        None if result is None else _json(result),
    )  # fmt: skip
    return Verdict(made, None, spent=True)


def _shortened(outcome: RateLimited, asked: int, waited: int) -> RateLimited:
    told = (
        f"it asked to wait {format_duration(asked)}, which is cut to {format_duration(waited)} (longest_wait)"
    )
    return msgspec.structs.replace(outcome, text=f"{outcome.text}; {told}" if outcome.text else told)


WITHHELD = "Withheld"
"""The outcome of a hand-over that was taken back before its call began: nothing left this process."""


def withhold(message: HandedOver, now: int) -> Verdict:
    """Give a message back whose account was closed between its hand-over and the start of its call."""
    made = Settlement(
        id=message.id, number=message.number, event=Event.GIVE_BACK.value, state=State.PENDING,
        due_at=message.due_at, turn=message.turn, attempts=message.attempts, started=now, finished=now,
        outcome=WITHHELD,
    )  # fmt: skip
    return Verdict(made, None, spent=False)


def spare(
    message: HandedOver, outcome: Outcome, started: int, finished: int, policy: Policy
) -> Verdict | None:
    """Give a message back that found its provider down, without an attempt; None where that cannot be.

    It stands behind those that were not tried: else one that brings its provider down would be every probe.
    """
    if not isinstance(outcome, (Temporary, Unknown)) or outcome.up is not False:
        return None
    if isinstance(outcome, Unknown) and not policy.repeat_is_safe:
        return None
    told = "it costs no attempt, for the provider is down"
    outcome = msgspec.structs.replace(outcome, text=f"{outcome.text}; {told}" if outcome.text else told)
    made = _made(message, Event.GIVE_BACK, outcome, started, finished)
    made.turn = max(message.turn, finished + 1)
    return Verdict(made, None, spent=isinstance(outcome, Unknown))


def _again(
    message: HandedOver, outcome: Temporary | Unknown, started: int, finished: int,
    policy: Policy, chance: Callable[[], float], least_ms: int,
) -> Settlement:  # fmt: skip
    attempts = message.attempts + 1
    if attempts >= message.max_attempts:
        return _made(message, Event.REFUSE, outcome, started, finished, attempts=attempts)
    due = finished + max(delay(policy.backoff, attempts, chance), least_ms)
    if message.expires_at is not None and due >= message.expires_at:
        return _made(message, Event.EXPIRE, outcome, started, finished, attempts=attempts)
    made = _made(message, Event.RETRY, outcome, started, finished, attempts=attempts)
    made.due_at = made.turn = due
    return made


def _held(message: HandedOver, outcome: Temporary, started: int, finished: int) -> Settlement:
    due = finished + max(HELD_MS, outcome.wait_ms or 0)
    if message.expires_at is not None and due >= message.expires_at:
        return _made(message, Event.EXPIRE, outcome, started, finished)
    made = _made(message, Event.RETRY, outcome, started, finished)
    made.due_at = made.turn = due
    return made


def _made(
    message: HandedOver,
    event: Event,
    outcome: Outcome,
    started: int,
    finished: int,
    attempts: int | None = None,
) -> Settlement:
    code = getattr(outcome, "code", None)
    text = getattr(outcome, "text", None)
    return Settlement(
        id=message.id,
        number=message.number,
        event=event.value,
        state=after(State.PROCESSING, event),
        due_at=message.due_at,
        turn=message.turn,
        attempts=message.attempts if attempts is None else attempts,
        started=started,
        finished=finished,
        outcome=type(outcome).__name__,
        code=code[:TEXT_MAX] if code else None,
        text=text[:TEXT_MAX] if text else None,
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
