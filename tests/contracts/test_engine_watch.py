"""Statistics, the scheduler, events, metrics and the doctor, on a real store with a real dispatcher."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from paceline.clock import ManualClock
from paceline.engine.events import StreamEvent
from paceline.engine.keys import Caller, DeniedError
from paceline.model.errors import InvalidError
from paceline.model.outcomes import AccountStopped, Permanent, RateLimited, Temporary, Unknown
from tests.contracts.test_engine_support import ACME, ADMIN, OTHER, PATIENCE, Engine, role, running

pytestmark = pytest.mark.every_store

START = 1_800_000_000_000


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        yield made


# -- statistics


async def test_the_overview_adds_up(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no")]
    for _ in range(4):
        await engine.ended(await engine.send(queue="sms"))
    await engine.send(delay="1h")
    view = await engine.service.watch.overview(role("viewer"))
    assert {name: n for name, n in view["totals"].items() if n} == {
        "completed": 3,
        "failed": 1,
        "scheduled": 1,
    }
    assert view["total"] == 5
    assert view["success_rate"] == {"overall": 0.75, "today": 0.75}
    assert (view["send_ms"]["count"], view["wait_ms"]["count"]) == (4, 3)
    assert view["send_ms"]["p99"] >= view["send_ms"]["p50"]
    sms = next(group for group in view["by_queue"] if group["name"] == "sms")
    assert sms == {"name": "sms", "total": 4, "counts": {"completed": 3, "failed": 1}, "success_rate": 0.75}
    assert [group["name"] for group in view["by_channel"]] == ["script"]
    assert [(group["tenant"], group["name"]) for group in view["by_account"]] == [("default", "a0")]


async def test_statistics_of_a_tenant_are_its_own(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no")]
    await engine.ended(await engine.send(ACME, queue="secret-plan"))
    await engine.ended(await engine.send(OTHER))
    watch = engine.service.watch
    mine, theirs = await watch.overview(ACME), await watch.overview(OTHER)
    assert (mine["total"], mine["success_rate"]["overall"], mine["send_ms"]["count"]) == (1, 0.0, 1)
    assert (theirs["total"], theirs["success_rate"]["overall"], theirs["send_ms"]["count"]) == (1, 1.0, 1)
    assert "secret-plan" not in str(theirs)
    assert (await watch.failures(ACME, "code"))["total"] == 1
    assert (await watch.failures(OTHER, "code"))["total"] == 0
    assert sum((await watch.realtime(ACME))["series"]["sent"]) == 0
    nobody = await watch.overview(role("viewer", "nobody"))
    assert (nobody["total"], nobody["success_rate"]["overall"], nobody["send_ms"]["p50"]) == (0, None, None)


async def test_realtime_shows_the_last_minute(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        for _ in range(10):
            await engine.ended(await engine.send(ACME))
        engine.advance(1)
        for caller in (ADMIN, ACME):
            view = await engine.service.watch.realtime(caller)
            assert view["rates"] == {"added": 1.0, "sent": 1.0, "failed": 0.0}
            assert view["series"]["sent"] == [0] * 58 + [10]
            assert (view["in_flight"], view["waiting"], view["is_running"]) == (0, 0, True)


async def test_failures_are_counted_by_reason(engine: Engine) -> None:
    again = {"type": "fixed", "delay": 3600}
    engine.script.outcomes = [Permanent("550", "no"), Temporary("451", "later"), Permanent("550", "no")]
    for _ in range(3):
        await engine.send(backoff=again)
    await engine.event("message-retrying")
    await engine.script.calls(3)
    await engine.ended(await engine.send())
    watch = engine.service.watch
    by_code = await watch.failures(ADMIN, "code")
    assert by_code["items"] == [
        {"code": "550", "class": "permanent", "channel": "script", "count": 2},
        {"code": "451", "class": "temporary", "channel": "script", "count": 1},
    ]
    assert (await watch.failures(ADMIN, "class"))["items"][0] == {"class": "permanent", "count": 2}
    assert (await watch.failures(ADMIN, "channel"))["items"] == [{"channel": "script", "count": 3}]
    with pytest.raises(InvalidError, match="/by"):
        await watch.failures(ADMIN, "text")


# -- the scheduler


async def test_the_scheduler_stops_and_starts(engine: Engine) -> None:
    watch = engine.service.watch
    stopped = await watch.stop(role("operator"))
    assert stopped["is_running"] is False and "restart" in stopped["detail"]
    id_ = await engine.send()
    why = await engine.service.messages.why(ADMIN, id_)
    assert why["reasons"][0]["kind"] == "stopped" and why["eta"] is None
    status = await watch.scheduler(role("viewer"))
    assert (status["total_queued_subtasks"], status["active_services"]) == (1, 1)
    assert (await watch.start(ADMIN))["is_running"] is True
    assert (await engine.ended(id_))["state"] == "completed"
    for caller in (ACME, role("sender")):
        with pytest.raises(DeniedError):
            await watch.stop(caller)


# -- events


async def take(events: AsyncIterator[StreamEvent | None], count: int) -> list[StreamEvent]:
    found: list[StreamEvent] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            event = await anext(events)
            if event is not None:
                found.append(event)
    return found


def listen(engine: Engine, caller: Caller, types: set[str] | None = None, **more: str) -> Any:
    """A subscription from the first event of the process on."""
    subscribe: Any = engine.service.watch.subscribe
    return aclosing(subscribe(caller, types, last_id=str(engine.events[0].id - 1), **more))


async def test_a_listener_hears_of_its_tenant_alone(engine: Engine) -> None:
    await engine.ended(await engine.send(ACME))
    id_ = await engine.send(OTHER)
    await engine.ended(id_)
    async with listen(engine, OTHER) as events:
        heard = await take(events, 3)
    assert [each.type for each in heard] == ["message-queued", "message-started", "message-sent"]
    assert {each.data["id"] for each in heard} == {id_}


async def test_events_of_nobody_are_for_installation_keys(engine: Engine) -> None:
    await engine.send(ACME, delay="1h")
    await engine.service.queues.pause(ADMIN, "sms")
    await engine.send(ACME, delay="1h")
    async with listen(engine, ACME) as events:
        assert [each.type for each in await take(events, 2)] == ["message-queued"] * 2
    async with listen(engine, ADMIN, {"queue-status"}) as events:
        assert [each.queue for each in await take(events, 1)] == ["sms"]


async def test_a_listener_hears_what_it_asked_for(engine: Engine) -> None:
    await engine.account("a1")
    await engine.ended(await engine.send(account="a0"))
    wanted = await engine.send(account="a1", queue="sms", campaign="spring")
    await engine.ended(wanted)
    for more in ({"account": "a1"}, {"queue": "sms"}, {"campaign": "spring"}):
        async with listen(engine, ADMIN, {"message-sent"}, **more) as events:
            assert [each.data["id"] for each in await take(events, 1)] == [wanted]
    with pytest.raises(InvalidError):
        engine.service.watch.subscribe(ADMIN, last_id="x")


async def test_an_expiry_is_told_to_its_tenant(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        await engine.service.accounts.pause(ADMIN, "a0")
        id_ = await engine.send(ACME, expires_at=engine.later(60))
        engine.advance(60)
        async with listen(engine, ACME, {"message-failed"}) as events:
            heard = (await take(events, 1))[0]
        assert (heard.data["id"], heard.data["state"], heard.queue) == (id_, "expired", "notification")


# -- metrics


async def scraped(engine: Engine) -> str:
    await engine.service.watch._metrics.read()
    return generate_latest(engine.service.watch.metrics()).decode()


async def test_metrics_of_what_happened(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no")]
    for _ in range(2):
        await engine.ended(await engine.send(queue="sms"))
    await engine.send(queue="sms", delay="1h")
    engine.script.free.clear()
    await engine.send(queue="sms")
    await engine.script.calls(3)
    await engine.send(queue="sms")
    lines = (await scraped(engine)).splitlines()
    for line in (
        'paceline_messages_total{queue="sms",status="added"} 5.0',
        'paceline_messages_total{queue="sms",status="failed"} 1.0',
        'paceline_messages_total{queue="sms",status="completed"} 1.0',
        'paceline_queue_depth{queue="sms",state="pending"} 1.0',
        'paceline_queue_depth{queue="sms",state="processing"} 1.0',
        'paceline_queue_depth{queue="sms",state="scheduled"} 1.0',
        'paceline_send_duration_seconds_count{queue="sms"} 2.0',
        'paceline_send_duration_seconds_bucket{le="+Inf",queue="sms"} 2.0',
        'paceline_wait_duration_seconds_count{queue="sms"} 1.0',
        'paceline_accounts{state="ready"} 1.0',
        "paceline_in_flight 1.0",
        "paceline_running 1.0",
        "paceline_store_away 0.0",
        "paceline_threads_active 0.0",
    ):
        assert line in lines
    assert any(line.startswith("paceline_store_commits_total") for line in lines)
    assert any(line.startswith("process_") for line in lines)


async def test_metrics_of_accounts(engine: Engine) -> None:
    await engine.account("a1")
    await engine.account("a2")
    await engine.service.accounts.pause(ADMIN, "a2")
    engine.script.outcomes = [RateLimited(3_600_000), AccountStopped("401", "bad token")]
    await engine.send(account="a0")
    await engine.script.calls(1)
    await engine.send(account="a1")
    await engine.event("account-status", lambda e: e.data.get("stopped") is not None)
    lines = (await scraped(engine)).splitlines()
    assert 'paceline_account_flood_waits_total{account="a0",tenant="default"} 1.0' in lines
    for state in ("flooded", "unhealthy", "paused"):
        assert f'paceline_accounts{{state="{state}"}} 1.0' in lines


async def test_metrics_hold_no_text_and_a_bounded_number_of_queues(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.engine.metrics.MOST_QUEUES", 3)
    for number in range(5):
        await engine.ended(await engine.send(queue=f"made-up-{number}", to="ada@example.com", text="s3cret"))
    text = await scraped(engine)
    assert 'paceline_messages_total{queue="other",status="added"} 5.0' in text.splitlines()
    assert "made-up" not in text and "ada@" not in text and "s3cret" not in text


# -- the doctor


async def findings(engine: Engine) -> dict[str, dict[str, Any]]:
    found = await engine.service.doctor()
    assert all(set(each) == {"name", "status", "ok", "detail", "advice"} for each in found)
    return {each["name"]: each for each in found}


async def test_a_sound_installation(engine: Engine) -> None:
    await engine.ended(await engine.send())
    found = await findings(engine)
    wrong = {name for name, each in found.items() if not each["ok"]}
    no_files = {"admin.key", "secret.key", "keys"}  # this engine was given its key, and has no people
    assert wrong - {"free disk"} == no_files  # how much disk there is, is the machine's
    assert {"store", "SQLite", "write-ahead log", "clock", "data folder", "stuck calls"} <= set(found)


async def test_the_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("x")
    (tmp_path / "admin.key").chmod(0o644)
    async with running(tmp_path, ManualClock(START)) as engine:
        for name in ("a1", "a2", "gone"):
            await engine.account(name)
        await engine.service.accounts.pause(ADMIN, "gone")
        await engine.send(account="gone")
        await engine.service.accounts.delete(ADMIN, "gone")
        engine.script.outcomes = [RateLimited(3_600_000)]
        await engine.send(account="a1")
        await engine.event("message-retrying")
        engine.script.outcomes = [AccountStopped("401", "bad token")]
        await engine.send(account="a2")
        await engine.event("account-status", lambda e: e.data.get("stopped") is not None)
        engine.script.outcomes = [Unknown("cut")]
        await engine.ended(await engine.send(account="a0"))
        engine.script.free.clear()
        stuck = await engine.send(account="a0")
        await engine.script.calls(4)
        await engine.service.queues.pause(ADMIN, "sms")
        await engine.service.watch.stop(ADMIN)
        engine.advance(600)
        found = await findings(engine)
    wrong = {name for name, each in found.items() if not each["ok"]}
    assert wrong >= {
        "admin.key", "scheduler", "refused accounts", "flood waits", "paused", "stuck calls",
        "uncertain messages", "messages without an account",
    }  # fmt: skip
    assert stuck in found["stuck calls"]["detail"]
    assert "default/gone" in found["messages without an account"]["detail"]
    assert all(each["advice"] for name, each in found.items() if name in wrong)
