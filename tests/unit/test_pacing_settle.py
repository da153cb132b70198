"""Every outcome, with attempts left or not, where repeating is safe or not, before and past the expiry."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.model.backoff import Backoff, Delays, Exponential, Fixed
from paceline.model.checks import print_time
from paceline.model.messages import AccountNote, HandedOver
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
from paceline.model.states import State
from paceline.pacing.forecast import gate_reasons
from paceline.pacing.lane import Account
from paceline.pacing.settle import TEXT_MAX, Policy, Verdict, delay, settle
from tests.unit.simulated import START, Answer, Simulated

STARTED, FINISHED = START, START + 300
MIDDLE = 0.5
STEADY = Fixed(5000)


def message(
    attempts: int = 0, max_attempts: int = 3, expires_at: int | None = None, group: str | None = "room"
) -> HandedOver:
    return HandedOver(
        id=7, number=4, attempts=attempts, account="t/a", tenant="t", queue="q", channel="chat", recipient="ann",
        kind=None, group=group, content="", metadata=None, max_attempts=max_attempts, timeout_ms=30_000,
        backoff=None, trace_id="", callback_url=None, created_at=1, expires_at=expires_at, due_at=START - 50,
        turn=START - 60, flow=9,
    )  # fmt: skip


def decide(
    outcome: Outcome, told: HandedOver | None = None, *, safe: bool = False, backoff: Backoff = STEADY
) -> Verdict:  # fmt: skip
    policy = Policy(backoff, repeat_is_safe=safe)
    return settle(told or message(), outcome, STARTED, FINISHED, policy, lambda: MIDDLE)


ACCEPT, FLOOD, BUSY = Accepted("ref"), RateLimited(9000), Temporary("450", "busy")
LACKING = Temporary("no-handler", "none here", counts=False)
NO, STOP, MOVE, LOST = (
    Permanent("550", "no"),
    AccountStopped("401", "bad"),
    Moved("bob", "551", "moved"),
    Unknown("cut"),
)

# outcome, attempts before (of 3), repeat is safe -> state, attempts after, due after the finish (None: as before), spent
TABLE: list[tuple[Outcome, int, bool, str, int, int | None, bool]] = [
    (ACCEPT, 0, False, "completed", 1, None, True),
    (ACCEPT, 2, False, "completed", 3, None, True),
    (ACCEPT, 2, True, "completed", 3, None, True),
    (FLOOD, 0, False, "pending", 0, None, False),
    (FLOOD, 2, False, "pending", 2, None, False),
    (FLOOD, 2, True, "pending", 2, None, False),
    (BUSY, 0, False, "retrying", 1, 5000, False),
    (BUSY, 1, True, "retrying", 2, 5000, False),
    (BUSY, 2, False, "failed", 3, None, False),
    (BUSY, 2, True, "failed", 3, None, False),
    (LACKING, 0, False, "retrying", 0, 30_000, False),
    (LACKING, 2, True, "retrying", 2, 30_000, False),
    (NO, 0, False, "failed", 1, None, False),
    (NO, 0, True, "failed", 1, None, False),
    (STOP, 0, False, "pending", 0, None, False),
    (STOP, 2, True, "pending", 2, None, False),
    (MOVE, 0, False, "pending", 1, None, False),
    (MOVE, 2, False, "failed", 3, None, False),
    (LOST, 0, False, "uncertain", 1, None, True),
    (LOST, 2, False, "uncertain", 3, None, True),
    (LOST, 0, True, "retrying", 1, 5000, True),
    (LOST, 2, True, "failed", 3, None, True),
]


@pytest.mark.parametrize(("outcome", "attempts", "safe", "state", "counted", "wait", "spent"), TABLE)
def test_what_becomes_of_a_message(
    outcome: Outcome, attempts: int, safe: bool, state: str, counted: int, wait: int | None, spent: bool
) -> None:
    verdict = decide(outcome, message(attempts), safe=safe)
    made = verdict.settlement
    assert (made.id, made.number, made.started, made.finished) == (7, 4, STARTED, FINISHED)
    assert State(made.state).label == state
    assert made.attempts == counted
    assert (made.due_at, made.turn) == (
        (START - 50, START - 60) if wait is None else (FINISHED + wait, FINISHED + wait)
    )
    assert verdict.spent is spent
    assert made.outcome == type(outcome).__name__


@pytest.mark.parametrize(("outcome", "safe"), [(BUSY, False), (LOST, True)])
@pytest.mark.parametrize(
    ("expires_in", "state"), [(5001, "retrying"), (5000, "expired"), (1, "expired"), (-10, "expired")]
)
def test_a_retry_that_would_come_too_late_is_not_waited_for(
    outcome: Outcome, safe: bool, expires_in: int, state: str
) -> None:
    verdict = decide(outcome, message(expires_at=FINISHED + expires_in), safe=safe)
    assert State(verdict.settlement.state).label == state
    assert verdict.settlement.attempts == 1


def test_an_expiry_does_not_undo_what_the_provider_took() -> None:
    assert decide(ACCEPT, message(expires_at=FINISHED - 1)).settlement.state == State.COMPLETED
    assert decide(LOST, message(expires_at=FINISHED - 1)).settlement.state == State.UNCERTAIN


@pytest.mark.parametrize(
    ("outcome", "group", "note"),
    [
        (RateLimited(9000), "room", AccountNote("t/a", FINISHED + 9000)),
        (RateLimited(0), "room", AccountNote("t/a", FINISHED)),
        (RateLimited(None), "room", AccountNote("t/a", FINISHED + 60_000)),
        (RateLimited(9000, "recipient"), "room", AccountNote("t/a", FINISHED + 9000, recipient="ann")),
        (RateLimited(9000, "group"), "room", AccountNote("t/a", FINISHED + 9000, group="room")),
        (RateLimited(9000, "group"), None, AccountNote("t/a", FINISHED + 9000, recipient="ann")),
        (STOP, "room", AccountNote("t/a", stopped="401: bad")),
        (ACCEPT, "room", None),
        (BUSY, "room", None),
        (NO, "room", None),
        (MOVE, "room", None),
        (LOST, "room", None),
    ],
)
def test_what_an_outcome_says_about_its_account(
    outcome: Outcome, group: str | None, note: AccountNote | None
) -> None:
    assert decide(outcome, message(group=group)).note == note


def test_the_providers_own_words_are_kept() -> None:
    made = decide(Permanent("550", "x" * 5000)).settlement
    assert (made.code, made.text) == ("550", "x" * TEXT_MAX)
    assert decide(LOST).settlement.code == "unknown"
    made = decide(Accepted("r" * 5000, {"n": [1, None]})).settlement
    assert (made.reference, made.result) == ("r" * TEXT_MAX, '{"n":[1,null]}')
    made = decide(Accepted()).settlement
    assert (made.reference, made.result, made.code, made.text) == (None, None, None, None)
    assert decide(MOVE).settlement.moved_to == "bob"


def test_the_providers_advice_lengthens_a_wait_and_never_shortens_it() -> None:
    assert decide(Temporary("450", "busy", 60_000)).settlement.due_at == FINISHED + 60_000
    assert decide(Temporary("450", "busy", 10)).settlement.due_at == FINISHED + 5000


# -- schedules


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (
            Exponential(1000, 2, 300_000, 0),
            [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000],
        ),
        (Exponential(2000, 2, 4000, 0), [2000, 4000, 4000, 4000]),
        (Exponential(1000, 1, 9000, 0), [1000] * 5),
        (Exponential(10_000, 3, 5000, 0), [5000] * 5),
        (Delays((10_000, 30_000, 60_000)), [10_000, 30_000, 60_000, 60_000, 60_000]),
        (Delays((0,)), [0, 0]),
        (Fixed(60_000), [60_000] * 4),
    ],
)
def test_the_whole_schedule_of_a_back_off(backoff: Backoff, waits: Sequence[int]) -> None:
    world = Simulated(lambda _release, _now: Answer(100, BUSY), backoff=backoff)
    world.account("a")
    world.add(world.key("a"), max_attempts=len(waits) + 1)
    world.run()
    sends = world.sends
    assert [later.started - earlier.finished for earlier, later in pairwise(sends)] == waits
    assert list(world.ended.values()) == [State.FAILED]


@given(
    st.integers(0, 604_800_000),
    st.floats(1, 100),
    st.integers(0, 604_800_000),
    st.floats(0, 1),
    st.integers(1, 500),
)
def test_jitter_stays_within_its_share(
    first: int, factor: float, most: int, jitter: float, failures: int
) -> None:
    backoff = Exponential(first, factor, most, jitter)
    exact = delay(Exponential(first, factor, most, 0), failures, lambda: MIDDLE)
    random = Random(failures)
    for chance in (0.0, 1.0, random.random()):
        waited = delay(backoff, failures, partial(float, chance))
        assert exact * (1 - jitter) - 1 <= waited <= exact * (1 + jitter) + 1


def test_jitter_spreads_what_failed_together() -> None:
    random = Random(1)
    waits = [delay(Exponential(10_000, 2, 300_000, 0.1), 1, random.random) for _ in range(500)]
    assert min(waits) < 9050
    assert max(waits) > 10_950
    assert 9950 < sum(waits) / len(waits) < 10_050


def test_an_absurd_wait_is_cut_and_told() -> None:
    policy = Policy(STEADY, repeat_is_safe=False, longest_wait_ms=60_000)
    year = 365 * 86_400_000
    made = settle(message(), RateLimited(year, text="slow down"), STARTED, FINISHED, policy, lambda: MIDDLE)
    assert made.note == AccountNote("t/a", FINISHED + 60_000, asked_until=FINISHED + year)
    assert made.settlement.text == "slow down; it asked to wait 365d, which is cut to 1m (longest_wait)"
    kept = settle(message(), RateLimited(60_000), STARTED, FINISHED, policy, lambda: MIDDLE)
    assert kept.note == AccountNote("t/a", FINISHED + 60_000) and kept.settlement.text is None
    bare = settle(message(), RateLimited(None), STARTED, FINISHED, Policy(STEADY, repeat_is_safe=False,
                  longest_wait_ms=1000), lambda: MIDDLE)  # fmt: skip
    assert bare.note == AccountNote("t/a", FINISHED + 1000) and bare.settlement.text is None
    gate = Account("t/a")
    gate.block(FINISHED + 60_000, FINISHED + year)
    (reason,) = gate_reasons(gate, FINISHED)
    assert reason.until == FINISHED + 60_000
    assert print_time(FINISHED + year) in reason.text and "longest_wait" in reason.text
    retried = settle(message(), Temporary("503", "", year), STARTED, FINISHED, policy, lambda: MIDDLE)
    assert retried.settlement.due_at == FINISHED + 60_000
