"""The circuit of an account in the engine: a provider that is down costs a backlog nothing, and is asked by one call."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from paceline.clock import ManualClock
from paceline.engine.metrics import Metrics
from paceline.model.checks import print_time
from paceline.model.errors import InvalidError
from paceline.model.outcomes import Accepted, Outcome, Permanent, RateLimited, Temporary, Unknown
from tests.contracts.test_engine_support import ADMIN, Engine, running

pytestmark = pytest.mark.every_store

START = 1_800_000_000_000
DOWN = Temporary("connect", "no connection", up=False)
LOST = Unknown("the connection was cut", up=False)
AFTER = 5
PAUSE_S = 1.125
"""The first pause: a second, and an eighth of it since chance always draws the middle."""


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path, ManualClock(START)) as made:
        yield made


async def settled(engine: Engine) -> None:
    """Nothing more happens until the clock moves or a held call is let go."""
    dispatcher, quiet, before = engine.core.dispatcher, 0, (-1, -1)
    while quiet < 5:
        await asyncio.sleep(0.005)
        now = (len(engine.script.sent), len(engine.core.attempts))
        ending = now[1] > 0 and engine.script.free.is_set()
        busy = dispatcher._tasks or dispatcher._ended or engine.core.upkeep._busy or ending
        quiet, before = (0 if busy or now != before else quiet + 1), now


async def moved(engine: Engine, seconds: float) -> int:
    """Let time pass; answers how many calls began."""
    calls = len(engine.script.sent)
    engine.advance(seconds)
    await settled(engine)
    return len(engine.script.sent) - calls


async def backlog(engine: Engine, many: int, answer: Outcome = DOWN, **more: Any) -> list[str]:
    """Messages for an account whose provider answers so."""
    engine.script.outcomes = [answer] * 10_000
    ids = [await engine.send(account="a0", **more) for _ in range(many)]
    await settled(engine)
    return ids


async def attempts(engine: Engine, ids: list[str]) -> list[int]:
    return [(await engine.service.messages.get(ADMIN, id_))["attempts"] for id_ in ids]


async def states(engine: Engine, ids: list[str]) -> set[str]:
    return {await engine.state(id_) for id_ in ids}


async def account(engine: Engine, **more: Any) -> dict[str, Any]:
    await engine.account("a0", shared=True, **more)
    return await engine.service.accounts.get(ADMIN, "a0")


# -- what it costs


async def test_a_backlog_loses_no_attempt_while_its_provider_is_down_and_drains_when_it_is_back(
    engine: Engine,
) -> None:
    ids = await backlog(engine, 60, max_attempts=3)
    assert len(engine.script.sent) == AFTER
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        assert await moved(engine, pause * 0.999) == 0
        assert await moved(engine, pause * 0.126 + 0.002) == 1
    assert sum(await attempts(engine, ids)) == AFTER - 1
    assert await states(engine, ids) == {"pending"}
    engine.script.outcomes.clear()
    assert await moved(engine, 75.1) == 60
    assert await states(engine, ids) == {"completed"}
    assert sum(await attempts(engine, ids)) == 60 + AFTER - 1


async def test_each_probe_is_another_message(engine: Engine) -> None:
    """One that brings its provider down by itself must not be every probe."""
    ids = await backlog(engine, 20)
    for pause in (1, 2, 4, 8):
        assert await moved(engine, pause * 1.126) == 1
    assert [id_ for id_, _ in engine.script.sent] == ids[: AFTER + 4]


async def test_what_was_under_way_when_it_opened_loses_no_attempt_either(engine: Engine) -> None:
    await account(engine, concurrency=12)
    engine.script.free.clear()
    ids = await backlog(engine, 30)
    assert len(engine.script.sent) == 12
    engine.script.free.set()
    await settled(engine)
    assert len(engine.script.sent) == 12
    counted = await attempts(engine, ids)
    assert sum(counted) == AFTER - 1
    assert (await engine.state(ids[0]), await engine.state(ids[11])) == ("retrying", "pending")
    error = (await engine.service.messages.get(ADMIN, ids[11]))["error"]
    assert (error["class"], error["code"]) == ("temporary", "connect")
    assert "costs no attempt" in error["text"]


async def test_what_may_have_been_taken_is_uncertain_also_while_it_is_open(engine: Engine) -> None:
    ids = await backlog(engine, AFTER + 3, LOST)
    assert [await engine.state(id_) for id_ in ids] == ["uncertain"] * AFTER + ["pending"] * 3
    assert await moved(engine, PAUSE_S + 0.01) == 1
    assert await engine.state(ids[AFTER]) == "uncertain"


async def test_what_may_have_been_taken_is_given_back_where_repeating_is_safe(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine.script), "repeat_is_safe", True)
    await account(engine, quota={"day": 100})
    ids = await backlog(engine, AFTER + 3, LOST)
    assert await moved(engine, PAUSE_S + 0.01) == 1
    assert (await engine.state(ids[AFTER]), (await attempts(engine, ids))[AFTER]) == ("pending", 0)
    assert (await engine.service.accounts.get(ADMIN, "a0"))["quota_left"] == {"day": 100 - AFTER - 1}


async def test_a_message_given_back_goes_through_another_account_of_its_pool(engine: Engine) -> None:
    engine.script.outcomes = [DOWN] * AFTER
    ids = [await engine.send(account="a0") for _ in range(AFTER - 1)]
    await settled(engine)
    free = await engine.send()
    await settled(engine)
    assert await engine.state(free) == "pending"
    await engine.account("a1", shared=True)
    await settled(engine)
    assert engine.script.sent[-1] == (free, "a1")
    assert (await engine.service.messages.get(ADMIN, free))["attempts"] == 1
    assert await states(engine, ids) == {"retrying"}


# -- what opens it


@pytest.mark.parametrize(
    "answer",
    [
        Permanent("550", "no such user"),
        Temporary("451", "later", up=True),
        Temporary("ValueError", "raised"),
        Unknown("?"),
    ],
    ids=["permanent", "later", "raised", "unknown"],
)
async def test_nothing_that_is_said_of_single_messages_opens_it(engine: Engine, answer: Outcome) -> None:
    await backlog(engine, 40, answer)
    assert len(engine.script.sent) == 40
    assert (await engine.service.accounts.get(ADMIN, "a0"))["state"] == "ready"


async def test_a_flood_wait_is_waited_for_and_ends_the_run(engine: Engine) -> None:
    run: list[Outcome] = [DOWN] * (AFTER - 1)
    engine.script.outcomes = [*run, RateLimited(60_000), *run]
    for _ in range(20):
        await engine.send(account="a0")
    await settled(engine)
    assert (await engine.service.accounts.get(ADMIN, "a0"))["state"] == "flooded"
    assert await moved(engine, 60.1) > AFTER


# -- slow start


async def test_it_starts_slowly(engine: Engine) -> None:
    await account(engine, concurrency=16)
    await backlog(engine, 60)
    opened = len(engine.script.sent)
    engine.script.outcomes.clear()
    rounds: list[int] = []
    engine.script.free.clear()
    began = await moved(engine, PAUSE_S + 0.01)
    while began and len(rounds) < 5:
        rounds.append(began)
        view = await engine.service.accounts.get(ADMIN, "a0")
        shown = ("limited", "slow-start") if began > 1 else ("unhealthy", "circuit-open")
        assert (view["state"], view["reasons"][0]["kind"]) == shown
        before = len(engine.script.sent)
        engine.script.free.set()  # those under way end; what begins then is held again
        engine.script.free = asyncio.Event()
        await settled(engine)
        began = len(engine.script.sent) - before
    assert opened >= AFTER
    assert rounds == [1, 2, 4, 8, 16]


# -- people


async def test_pausing_and_resuming_while_it_is_open(engine: Engine) -> None:
    await backlog(engine, 20)
    assert await moved(engine, PAUSE_S + 0.01) == 1
    await engine.service.accounts.pause(ADMIN, "a0")
    assert await moved(engine, 600) == 0
    await engine.service.accounts.resume(ADMIN, "a0")
    await settled(engine)
    assert len(engine.script.sent) == AFTER + 2
    await engine.service.accounts.resume(ADMIN, "a0")  # somebody wants it tried now
    await settled(engine)
    assert len(engine.script.sent) == AFTER + 3
    assert await moved(engine, 1.9) == 0


async def test_new_settings_are_tried_at_once_by_one_message(engine: Engine) -> None:
    ids = await backlog(engine, 20)
    await account(engine, concurrency=10)
    await settled(engine)
    assert len(engine.script.sent) == AFTER + 1
    engine.script.outcomes.clear()
    await account(engine, concurrency=10)
    await settled(engine)
    await moved(engine, 10)
    assert await states(engine, ids) == {"completed"}


async def test_a_good_probe_of_a_person_is_followed_by_one_of_a_message(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def probe(*_given: Any) -> Outcome:
        return answer

    monkeypatch.setattr(engine.script, "probe", probe)
    await backlog(engine, 20)
    answer: Outcome = DOWN
    await engine.service.accounts.probe(ADMIN, "a0")
    await settled(engine)
    assert len(engine.script.sent) == AFTER
    answer = Accepted()
    await engine.service.accounts.probe(ADMIN, "a0")
    await settled(engine)
    assert len(engine.script.sent) == AFTER + 1


async def test_it_can_be_turned_off(engine: Engine) -> None:
    ids = await backlog(engine, 20)
    view = await account(engine, circuit=None)
    await settled(engine)
    assert view["circuit"] is None
    assert len(engine.script.sent) == 20 + 1  # the one that opened it lost no attempt by that, and went again
    assert await attempts(engine, ids) == [1] * 20


async def test_an_account_that_is_removed_and_comes_back_loses_nothing(engine: Engine) -> None:
    ids = await backlog(engine, 20)
    await engine.service.accounts.delete(ADMIN, "a0")
    assert await moved(engine, 5) == 0
    engine.script.outcomes.clear()
    await account(engine)
    await settled(engine)
    assert await states(engine, ids) == {"completed"}


async def test_after_a_restart_it_begins_closed_and_nothing_is_lost(tmp_path: Path) -> None:
    clock = ManualClock(START)
    async with running(tmp_path, clock) as engine:
        ids = await backlog(engine, 20)
        assert (await engine.service.accounts.get(ADMIN, "a0"))["state"] == "unhealthy"
    async with running(tmp_path, clock) as engine:
        await moved(engine, 10)
        assert await states(engine, ids) == {"completed"}


# -- what is shown


async def test_it_is_shown_by_the_account_and_told_as_an_event(engine: Engine) -> None:
    await backlog(engine, AFTER - 1)
    assert [event.type for event in engine.events if event.type == "account-status"] == []
    await backlog(engine, 20)
    until = START + round(PAUSE_S * 1000)
    view = await engine.service.accounts.get(ADMIN, "a0")
    assert (view["state"], view["until"]) == ("unhealthy", print_time(until))
    assert [reason["kind"] for reason in view["reasons"]] == ["circuit-open"]
    opened = await engine.event("account-status", lambda event: event.data["state"] == "unhealthy")
    assert opened.data == {
        "account": "a0", "state": "unhealthy", "until_ms": until, "stopped": None, "reason": "circuit-open",
        "code": "connect",
    }  # fmt: skip
    engine.script.outcomes.clear()
    await moved(engine, PAUSE_S + 0.01)
    await engine.event("account-status", lambda event: event.data["state"] == "ready")
    assert (await engine.service.accounts.get(ADMIN, "a0"))["state"] == "ready"


async def test_a_message_says_why_it_waits_and_does_not_go_before(engine: Engine) -> None:
    ids = await backlog(engine, 20)
    until = print_time(START + round(PAUSE_S * 1000))
    why = await engine.service.messages.why(ADMIN, ids[-1])
    reason = why["reasons"][0]
    assert (reason["kind"], reason["until"]) == ("circuit-open", until)
    assert reason["text"] == f"account a0 found its provider down (connect) and rests until {until}"
    assert why["eta"] >= until
    assert await moved(engine, PAUSE_S - 0.001) == 0
    engine.script.free.clear()
    assert await moved(engine, 0.001) == 1
    why = await engine.service.messages.why(ADMIN, ids[-1])
    assert (why["reasons"][0]["kind"], why["reasons"][0]["until"]) == ("circuit-open", None)


async def test_metrics_and_the_doctor_tell_of_it(engine: Engine) -> None:
    await backlog(engine, 20)
    await moved(engine, PAUSE_S + 0.01)
    lines = generate_latest(Metrics(engine.core).registry).decode().splitlines()
    assert 'paceline_account_circuit_openings_total{account="a0",tenant="default"} 2.0' in lines
    assert 'paceline_accounts{state="unhealthy"} 1.0' in lines
    checks = {each["name"]: each for each in await engine.service.doctor()}
    assert checks["open circuits"]["status"] == "warn"
    assert checks["open circuits"]["detail"].startswith("default/a0 (connect)")


# -- settings


async def test_its_settings_are_shown_as_they_are_put(engine: Engine) -> None:
    assert (await account(engine))["circuit"] == {"after": AFTER, "pause": "1s", "at_most": "1m"}
    view = await account(engine, circuit={"after": 2, "pause": 0.5})
    assert view["circuit"] == {"after": 2, "pause": "500ms", "at_most": "1m"}
    await backlog(engine, 9)
    assert len(engine.script.sent) == 2
    assert await moved(engine, 0.6) == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("on", "/circuit"),
        ({"after": 0}, "/circuit/after"),
        ({"after": True}, "/circuit/after"),
        ({"pause": "1ms"}, "/circuit/pause"),
        ({"at_most": "2d"}, "/circuit/at_most"),
        ({"pause": "2m"}, "/circuit/pause"),
        ({"often": 1}, "/circuit/often"),
    ],
)
async def test_wrong_settings_are_refused_by_name(engine: Engine, given: Any, field: str) -> None:
    with pytest.raises(InvalidError) as refused:
        await account(engine, circuit=given)
    assert [problem.field for problem in refused.value.problems] == [field]
