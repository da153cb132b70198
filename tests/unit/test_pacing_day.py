"""A day of a thousand accounts, with floods and failures: exact for each, fully used, nothing lost."""

from collections import defaultdict
from random import Random

from paceline.model.limits import parse_limit
from paceline.model.outcomes import Accepted, RateLimited, Temporary
from paceline.model.states import State
from paceline.pacing.lane import Release
from tests.unit.simulated import (
    START,
    Answer,
    Send,
    Simulated,
    delays,
    most_arrivals,
    most_at_once,
    most_possible,
)

DAY = 86_400_000
ACCOUNTS = 1000
USUAL = ["20/min", "200/h"]
INTERVAL = 3500
SATURATED = 4  # accounts that have work for the whole day


def test_a_day_of_a_thousand_accounts() -> None:
    random = Random(2026)
    floods: dict[str, list[tuple[int, int]]] = defaultdict(
        list
    )  # when an account was told to wait, and until when

    def call(release: Release, now: int) -> Answer:
        account, took = release.account.id, random.randrange(100, 3000)
        assert not any(told <= now < until for told, until in floods[account]), "sent into a flood wait"
        chance = random.random()
        if chance < 0.1 and not account.endswith("/steady"):
            wait = random.randrange(1000, 120_000)
            floods[account].append((now + took, now + took + wait))
            return Answer(took, RateLimited(wait))
        return Answer(took, Temporary("450", "busy") if chance > 0.97 else Accepted())

    world = Simulated(call, seed=1)
    names = [f"a{number}" for number in range(ACCOUNTS)] + [f"{n}/steady" for n in range(SATURATED)]
    spaced = {name for number, name in enumerate(names[:ACCOUNTS]) if number % 10 == 0}
    for name in names:
        if name in spaced:
            world.account(name, *USUAL, interval_ms=INTERVAL, jitter=0.3)
        else:
            world.account(name, *USUAL, concurrency=2)
    ids: list[int] = []
    for name in names[:ACCOUNTS]:
        for _ in range(2):
            key = world.key(name, tenant=random.choice("tuv"))
            count = random.choice([1, 10, 30, 70])
            moment = START + random.randrange(DAY)
            world.at(moment, lambda k=key, c=count: ids.extend(world.fill(k, c)))  # type: ignore[misc]  # binds the loop's values
    for name in names[ACCOUNTS:]:
        ids.extend(world.fill(world.key(name), 5200))
    world.run()

    # Nothing lost, nothing twice.
    accepted = [send.message for send in world.sends if isinstance(send.outcome, Accepted)]
    assert len(accepted) == len(set(accepted))
    assert set(world.ended) == set(ids)
    assert {id_ for id_, state in world.ended.items() if state is State.COMPLETED} == set(accepted)
    assert set(world.ended.values()) <= {State.COMPLETED, State.FAILED}
    assert world.agenda.out == {}
    assert world.agenda.prefetch.flows == 0

    # Exact, for each account and each limit.
    by_account: dict[str, list[Send]] = defaultdict(list)
    for send in world.sends:
        by_account[send.account].append(send)
    assert len(by_account) == len(names)
    for account, sends in by_account.items():
        for limit in map(parse_limit, USUAL):
            assert most_possible(sends, limit.span_ms) <= limit.maximum
            assert most_arrivals(sends, limit.span_ms) <= limit.maximum
        if account.removeprefix("t/") in spaced:
            assert most_possible(sends, INTERVAL) == 1
        assert most_at_once(sends) <= 2

    # Full use: with work waiting and nothing refused, each send starts at the first moment there is. And what
    # that comes to: nine hundred and ninety-nine of a thousand that the limits allow.
    for name in names[ACCOUNTS:]:
        sends = by_account[f"t/{name}"]
        assert max(delays(sends[:2000], USUAL, 2)) == 0
        in_day = sum(1 for send in sends if send.started < START + DAY)
        longest = max(send.finished - send.started for send in sends)
        assert in_day >= 0.99 * 200 * DAY / (3_600_000 + longest)

    # No busy loop: a look at the agenda for each thing that happened, and hardly more.
    happened = 2 * len(world.sends) + 2 * ACCOUNTS
    assert world.steps <= 2 * happened
