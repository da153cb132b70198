"""Queues and the line of one account, on a real store with a real dispatcher."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.clock import ManualClock
from paceline.engine.keys import DeniedError
from paceline.model.accounts import default_queues
from paceline.model.errors import ConflictError, InvalidError, NotFoundError
from paceline.model.outcomes import Permanent, Temporary, Unknown
from tests.contracts.test_engine_support import ACME, ADMIN, OTHER, Engine, role, running

pytestmark = pytest.mark.every_store

NAMES = ("waiting", "active", "completed", "failed", "delayed", "paused")
START = 1_800_000_000_000


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        yield made


async def counts(engine: Engine, name: str, caller: Any = ADMIN) -> dict[str, int]:
    status = await engine.service.queues.status(caller)
    found: dict[str, int] = next(each["counts"] for each in status["queues"] if each["name"] == name)
    return found


def of(**given: int) -> dict[str, int]:
    return {**dict.fromkeys(NAMES, 0), **given}


# -- settings


async def test_the_default_queues_are_there_and_stored(engine: Engine) -> None:
    listed = await engine.service.queues.list(role("viewer"))
    assert {each["name"] for each in listed["items"]} == set(default_queues())
    assert len(await engine.store.documents("queue")) == len(default_queues())
    job = next(each for each in listed["items"] if each["name"] == "data-export")
    assert job["retention"] == {"completed": 86_400.0, "failed": 604_800.0, "count": 1000}
    chat = next(each for each in listed["items"] if each["name"] == "wechat-message")
    assert chat["backoff"] == {"type": "list", "delays": ["10s", "30s", "1m"]}


async def test_settings_are_kept_over_a_restart(tmp_path: Path) -> None:
    body = {
        "concurrency": 2, "max_attempts": 7, "timeout": "10s", "backoff": {"type": "fixed", "delay": 5},
        "retention": {"completed": "1h", "failed": None, "count": 9},
    }  # fmt: skip
    async with running(tmp_path) as engine:
        put = await engine.service.queues.put(ADMIN, "sms", body)
        await engine.service.queues.put(ADMIN, "mine", {})
        await engine.service.queues.pause(ADMIN, "sms")
    async with running(tmp_path) as engine:
        listed = {each["name"]: each for each in (await engine.service.queues.list(ADMIN))["items"]}
        assert listed["sms"] == {**put, "paused": True}
        assert listed["mine"]["max_attempts"] == 3
        assert (put["timeout"], put["concurrency"], put["backoff"]) == (
            10.0,
            2,
            {"type": "fixed", "delay": "5s"},
        )
        assert put["retention"] == {"completed": 3600.0, "failed": None, "count": 9}
        await engine.send(queue="sms")
        assert await counts(engine, "sms") == of(paused=1)


async def test_the_settings_hold_for_new_messages_and_for_calls(engine: Engine) -> None:
    await engine.account("a1", concurrency=10)
    await engine.service.queues.put(ADMIN, "narrow", {"concurrency": 1, "max_attempts": 1})
    engine.script.free.clear()
    ids = [await engine.send(queue="narrow", account="a1") for _ in range(3)]
    await engine.script.calls(1)
    assert await counts(engine, "narrow") == of(active=1, waiting=2)
    assert (await engine.service.messages.get(ADMIN, ids[0]))["max_attempts"] == 1
    engine.script.free.set()
    for id_ in ids:
        await engine.ended(id_)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], {""}),
        ({"concurency": 2}, {"/concurency"}),
        ({"concurrency": 0, "max_attempts": 101}, {"/concurrency", "/max_attempts"}),
        ({"timeout": "1ms"}, {"/timeout"}),
        ({"backoff": {"type": "square"}}, {"/backoff"}),
        ({"retention": 30}, {"/retention"}),
        ({"retention": {"completed": "soon", "cout": 1}}, {"/retention/completed", "/retention/cout"}),
    ],
)
async def test_wrong_settings_change_nothing(engine: Engine, body: Any, fields: set[str]) -> None:
    before = await engine.service.queues.list(ADMIN)
    with pytest.raises(InvalidError) as error:
        await engine.service.queues.put(ADMIN, "sms", body)
    assert {each.field for each in error.value.problems} == fields
    assert await engine.service.queues.list(ADMIN) == before


async def test_a_queue_is_everybodys(engine: Engine) -> None:
    queues = engine.service.queues
    for call in (queues.put(ACME, "sms", {}), queues.pause(ACME, "sms"), queues.resume(ACME, "sms")):
        with pytest.raises(DeniedError, match="whole installation"):
            await call
    for call in (queues.put(role("operator"), "sms", {}), queues.pause(role("sender"), "sms")):
        with pytest.raises(DeniedError, match="needs the role"):
            await call
    with pytest.raises(InvalidError, match="/name"):
        await queues.put(ADMIN, "no name", {})


# -- looking


async def test_counts_by_view(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no"), Temporary("451", "later"), Unknown("cut")]
    for _ in range(4):
        await engine.send(backoff={"type": "fixed", "delay": 3600})
    await engine.script.calls(4)
    await engine.event("message-sent")
    await engine.send(delay="1h")
    await engine.service.actions.cancel(ADMIN, await engine.send(delay="1h"))
    engine.script.free.clear()
    await engine.send()
    await engine.script.calls(5)
    await engine.send()
    assert await counts(engine, "notification") == of(waiting=1, active=1, completed=1, failed=1, delayed=2)
    status = await engine.service.queues.status(ADMIN)
    assert status["summary"] == {
        "totalQueues": len(default_queues()), "totalWaiting": 1, "totalActive": 1, "totalCompleted": 1,
        "totalFailed": 1,
    }  # fmt: skip
    assert status["timestamp"].endswith("Z")


async def test_a_pause_holds_a_queue_and_resume_lets_it_go(engine: Engine) -> None:
    assert (await engine.service.queues.pause(ADMIN, "sms"))["paused"] is True
    event = await engine.event("queue-status")
    assert (event.queue, event.data["paused"]) == ("sms", True)
    held = await engine.send(queue="sms")
    await engine.ended(await engine.send())
    assert await counts(engine, "sms") == of(paused=1)
    assert [each["kind"] for each in (await engine.service.messages.why(ADMIN, held))["reasons"]] == [
        "paused"
    ]
    await engine.service.queues.resume(ADMIN, "sms")
    assert (await engine.ended(held))["state"] == "completed"


async def test_what_waits_for_a_paused_account_counts_as_paused(engine: Engine) -> None:
    await engine.account("a1")
    await engine.service.accounts.pause(ADMIN, "a1")
    engine.script.free.clear()
    await engine.send(account="a0")
    await engine.script.calls(1)
    await engine.send(account="a0")
    pinned = await engine.send(account="a1")
    assert await counts(engine, "notification") == of(active=1, waiting=1, paused=1)
    paused = await engine.service.queues.jobs(ADMIN, "notification", "paused", 0, 9)
    assert [each["id"] for each in paused["items"]] == [pinned]
    waiting = await engine.service.queues.jobs(ADMIN, "notification", "waiting", 0, 9)
    assert pinned not in [each["id"] for each in waiting["items"]] and waiting["total"] == 1


async def test_jobs_are_paged_newest_first(engine: Engine) -> None:
    ids = [await engine.send(queue="sms", delay="1h") for _ in range(7)][::-1]
    jobs = engine.service.queues.jobs
    page = await jobs(ADMIN, "sms", "delayed", 0, 2)
    assert ([each["id"] for each in page["items"]], page["total"]) == (ids[:3], 7)
    page = await jobs(ADMIN, "sms", "delayed", 3, 99)
    assert [each["id"] for each in page["items"]] == ids[3:]
    assert (await jobs(ADMIN, "sms", "delayed", 7, 8))["items"] == []
    assert (await jobs(ADMIN, "sms", "completed", 0, 9))["items"] == []


@pytest.mark.parametrize(
    ("status", "start", "end"), [("done", 0, 9), ("waiting", 5, 4), ("waiting", 0, 1000)]
)
async def test_a_range_that_is_none_is_refused(engine: Engine, status: str, start: int, end: int) -> None:
    with pytest.raises(InvalidError):
        await engine.service.queues.jobs(ADMIN, "sms", status, start, end)


async def test_a_queue_that_was_never_made_exists_once_it_has_messages(engine: Engine) -> None:
    queues = engine.service.queues
    for call in (queues.jobs(ADMIN, "smss", "waiting", 0, 9), queues.pause(ADMIN, "smss"),
                 queues.empty(ADMIN, "smss"), queues.clean(ADMIN, "smss", 0, "completed")):  # fmt: skip
        with pytest.raises(NotFoundError, match="did you mean 'sms'"):
            await call
    await engine.send(ACME, queue="smss", delay="1h")
    assert (await queues.jobs(ACME, "smss", "delayed", 0, 9))["total"] == 1
    with pytest.raises(NotFoundError):
        await queues.jobs(OTHER, "smss", "delayed", 0, 9)


async def test_one_job(engine: Engine) -> None:
    queues = engine.service.queues
    engine.script.outcomes = [Permanent("550", "no")]
    id_ = await engine.send(queue="sms")
    await engine.ended(id_)
    assert (await queues.job(ADMIN, "sms", id_))["error"]["code"] == "550"
    for call in (queues.job(ADMIN, "email", id_), queues.remove_job(ADMIN, "email", id_),
                 queues.retry_job(ADMIN, "email", id_), queues.job(OTHER, "sms", id_)):  # fmt: skip
        with pytest.raises(NotFoundError):
            await call
    await queues.retry_job(ADMIN, "sms", id_)
    assert (await engine.ended(id_))["state"] in ("completed", "failed")
    await engine.script.calls(2)
    await engine.event("message-sent")
    await queues.remove_job(ADMIN, "sms", id_)
    with pytest.raises(NotFoundError):
        await queues.job(ADMIN, "sms", id_)


# -- making room


async def test_empty_removes_what_waits_and_nothing_else(engine: Engine) -> None:
    done = await engine.send(queue="sms")
    await engine.ended(done)
    engine.script.free.clear()
    under_way = await engine.send(queue="sms")
    await engine.script.calls(2)
    for delay in (0, 0, 3600):
        await engine.send(queue="sms", delay=delay)
    await engine.send(queue="email", delay="1h")
    assert await engine.service.queues.empty(ADMIN, "sms") == {"removed": 3}
    assert await counts(engine, "sms") == of(active=1, completed=1)
    assert await counts(engine, "email") == of(delayed=1)
    engine.script.free.set()
    assert (await engine.ended(under_way))["state"] == "completed"
    assert len(engine.script.sent) == 2


async def test_clean_removes_what_ended_long_enough_ago(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        clean = engine.service.queues.clean
        await engine.ended(await engine.send(queue="sms"))
        engine.advance(60)
        engine.script.outcomes = [Permanent("550", "no")]
        await engine.ended(await engine.send(queue="sms"))
        await engine.ended(await engine.send(queue="sms"))
        assert await clean(ADMIN, "sms", 60_001, "completed") == {"removed": 0}
        assert await clean(ADMIN, "sms", 60_000, "completed") == {"removed": 1}
        assert await clean(ADMIN, "sms", 0, "failed") == {"removed": 1}
        assert await clean(ADMIN, "sms", 0, "completed") == {"removed": 1}
        assert await counts(engine, "sms") == of()
        with pytest.raises(InvalidError, match="/type"):
            await clean(ADMIN, "sms", 0, "waiting")


async def test_a_tenant_sees_and_removes_its_own(engine: Engine) -> None:
    mine, theirs = await engine.send(ACME, delay="1h"), await engine.send(OTHER, delay="1h")
    for caller, id_ in ((ACME, mine), (OTHER, theirs)):
        assert await counts(engine, "notification", caller) == of(delayed=1)
        page = await engine.service.queues.jobs(caller, "notification", "delayed", 0, 9)
        assert [each["id"] for each in page["items"]] == [id_]
    assert await engine.service.queues.empty(ACME, "notification") == {"removed": 1}
    assert await engine.state(theirs) == "scheduled"


# -- the line of one account


async def test_the_line_of_an_account(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no"), Temporary("451", "later")]
    for _ in range(3):
        await engine.send(account="a0", backoff={"type": "fixed", "delay": 3600})
    await engine.event("message-sent")
    engine.script.free.clear()
    await engine.send()
    await engine.script.calls(4)
    await engine.send(account="a0")
    view = await engine.service.queues.account_queue(role("viewer"), "a0")
    stats = view.pop("stats")
    assert view == {
        "account": "a0", "pending": 1, "scheduled": 0, "processing": 1, "retrying": 1, "failed": 1, "total": 4,
    }  # fmt: skip
    assert (stats["total"], stats["completed"], stats["failed"], stats["retries"]) == (2, 1, 1, 1)
    assert stats["avg_time"] >= 0


async def test_the_figures_of_a_shared_account_are_each_tenants_own(engine: Engine) -> None:
    await engine.ended(await engine.send(ACME))
    await engine.send(ACME, account="a0", delay="1h")
    line = engine.service.queues.account_queue
    assert (await line(ACME, "a0"))["stats"]["completed"] == 1
    assert (await line(ACME, "a0"))["scheduled"] == 1
    assert (await line(OTHER, "a0"))["stats"]["completed"] == 0
    assert (await line(OTHER, "a0"))["total"] == 0
    await engine.account("private", ACME)
    with pytest.raises(NotFoundError):
        await line(OTHER, "private")


@pytest.mark.parametrize(
    ("status", "removed", "left"),
    [("pending", 1, (0, 1, 1)), ("failed", 1, (1, 1, 0)), ("retrying", 1, (1, 0, 1)), (None, 4, (0, 0, 0))],
)
async def test_an_account_is_cleared_by_state(
    engine: Engine, status: str | None, removed: int, left: tuple[int, int, int]
) -> None:
    engine.script.outcomes = [Permanent("550", "no"), Temporary("451", "later")]
    for _ in range(3):
        await engine.send(account="a0", backoff={"type": "fixed", "delay": 3600})
    await engine.event("message-sent")
    await engine.service.accounts.pause(ADMIN, "a0")
    await engine.send(account="a0")
    await engine.send(account="a0", delay="1h")
    queues = engine.service.queues
    assert await queues.clear_account(ADMIN, "a0", status) == {"removed": removed}
    view = await queues.account_queue(ADMIN, "a0")
    assert (view["pending"], view["retrying"], view["failed"]) == left
    assert view["stats"]["completed"] == 1


async def test_an_account_is_not_cleared_of_what_is_under_way(engine: Engine) -> None:
    engine.script.free.clear()
    id_ = await engine.send(account="a0")
    await engine.script.calls(1)
    queues = engine.service.queues
    assert await queues.clear_account(ADMIN, "a0", None) == {"removed": 0}
    with pytest.raises(InvalidError, match="/status"):
        await queues.clear_account(ADMIN, "a0", "processing")
    with pytest.raises(NotFoundError, match="did you mean 'a0'"):
        await queues.clear_account(ADMIN, "a00", "failed")
    with pytest.raises(ConflictError):
        await queues.remove_job(ADMIN, "notification", id_)
