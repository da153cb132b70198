"""Limits wider than an account, templates: set, seen, kept, removed; and limits tried out on paper."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from paceline.clock import ManualClock
from paceline.engine.keys import DeniedError
from paceline.model.errors import InvalidError, NotFoundError, UnavailableError
from paceline.model.outcomes import RateLimited
from tests.contracts.test_engine_support import ACME, ADMIN, OTHER, Engine, role, running

pytestmark = [pytest.mark.every_store, pytest.mark.usual]

START = 1_800_000_000_000


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        await made.account("a0", shared=True, concurrency=10)
        yield made


def fields(error: pytest.ExceptionInfo[InvalidError]) -> set[str]:
    return {each.field for each in error.value.problems}


# -- wide limits


async def test_a_limit_holds_what_was_sent_before_it_was_made(engine: Engine) -> None:
    await engine.ended(await engine.send(queue="sms"))
    view = await engine.service.limits.put(ADMIN, "slow", {"scope": {"queue": "sms"}, "limit": "2/h"})
    assert (view["scope"], view["limit"], view["used"], view["maximum"]) == ({"queue": "sms"}, "2/h", 1, 2)
    await engine.ended(await engine.send(queue="sms"))
    held = await engine.send(queue="sms")
    await engine.ended(await engine.send(queue="email"))
    assert await engine.state(held) == "pending"
    view = await engine.service.limits.get(ADMIN, "slow")
    assert view["used"] == 2 and view["until"] is not None
    await engine.service.limits.delete(ADMIN, "slow")
    assert (await engine.ended(held))["state"] == "completed"
    with pytest.raises(NotFoundError):
        await engine.service.limits.get(ADMIN, "slow")


async def test_a_limit_for_each_recipient(engine: Engine) -> None:
    scope = {"recipient": "*", "channel": "script"}
    view = await engine.service.limits.put(ADMIN, "each", {"scope": scope, "limit": "1/min"})
    assert (view["scope"], view["used"], view["maximum"]) == (
        {"channel": "script", "recipient": "*"},
        None,
        1,
    )
    await engine.ended(await engine.send(to="ada"))
    held = await engine.send(to="ada")
    await engine.ended(await engine.send(to="grace"))
    assert await engine.state(held) == "pending"


async def test_limits_are_kept_over_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        await engine.service.limits.put(ADMIN, "slow", {"scope": {"global": True}, "limit": "1/h"})
        await engine.service.limits.put(ACME, "slow", {"scope": {"queue": "sms"}, "limit": "5/h"})
        await engine.ended(await engine.send())
    async with running(tmp_path, ManualClock(START + 1000)) as engine:
        listed = (await engine.service.limits.list(ADMIN))["items"]
        assert [(each["name"], each["tenant"], each["used"]) for each in listed] == [
            ("slow", "acme", 0),
            ("slow", None, 1),
        ]
        assert listed[1]["scope"] == {"global": True}
        id_ = await engine.send()
        assert await engine.state(id_) == "pending"


async def test_a_tenant_limits_itself_alone(engine: Engine) -> None:
    limits = engine.service.limits
    view = await limits.put(ACME, "own", {"scope": {"queue": "sms"}, "limit": "1/h"})
    assert view["scope"] == {"tenant": "acme", "queue": "sms"}
    with pytest.raises(DeniedError):
        await limits.put(ACME, "x", {"scope": {"tenant": "other"}, "limit": "1/h"})
    await engine.ended(await engine.send(ACME, queue="sms"))
    held = await engine.send(ACME, queue="sms")
    await engine.ended(await engine.send(OTHER, queue="sms"))
    assert await engine.state(held) == "pending"
    assert (await limits.list(OTHER))["items"] == []
    for call in (limits.get(OTHER, "own"), limits.delete(OTHER, "own"), limits.get(ADMIN, "own")):
        with pytest.raises(NotFoundError):
            await call
    assert [each["name"] for each in (await limits.list(ACME))["items"]] == ["own"]
    with pytest.raises(DeniedError):
        await limits.put(role("operator"), "x", {"scope": {"global": True}, "limit": "1/h"})


async def test_everything_that_a_tenant_limits_is_its_own_everything(engine: Engine) -> None:
    view = await engine.service.limits.put(ACME, "all", {"scope": {"global": True}, "limit": "1/h"})
    assert view["scope"] == {"tenant": "acme"}
    await engine.ended(await engine.send(ACME))
    held = await engine.send(ACME)
    await engine.ended(await engine.send(OTHER))
    assert await engine.state(held) == "pending"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ([], {""}),
        ({}, {"/scope", "/limit"}),
        ({"scope": {"queue": "sms"}, "limit": "often"}, {"/limit"}),
        ({"scope": {"queue": "sms"}, "limit": 5}, {"/limit"}),
        ({"scope": {}, "limit": "1/s"}, {"/scope"}),
        ({"scope": "queue", "limit": "1/s"}, {"/scope"}),
        ({"scope": {"global": False}, "limit": "1/s"}, {"/scope"}),
        ({"scope": {"global": True, "queue": "sms"}, "limit": "1/s"}, {"/scope"}),
        ({"scope": {"queu": "sms"}, "limit": "1/s"}, {"/scope/queu"}),
        ({"scope": {"queue": 5, "recipient": ""}, "limit": "1/s"}, {"/scope/queue", "/scope/recipient"}),
        ({"scope": {"account": "a0"}, "limit": "1/s"}, {"/scope/account"}),
        ({"scope": {"channel": "scrpt"}, "limit": "1/s"}, {"/scope/channel"}),
        ({"scope": {"queue": "sms"}, "limit": "1/s", "window": 5}, {"/window"}),
    ],
)
async def test_a_wrong_limit_is_not_made(engine: Engine, body: Any, wrong: set[str]) -> None:
    with pytest.raises(InvalidError) as error:
        await engine.service.limits.put(ADMIN, "x", body)
    assert fields(error) == wrong
    assert (await engine.service.limits.list(ADMIN))["items"] == []


async def test_a_limit_is_replaced(engine: Engine) -> None:
    limits = engine.service.limits
    await limits.put(ADMIN, "x", {"scope": {"queue": "sms"}, "limit": "1/h"})
    await engine.ended(await engine.send(queue="sms"))
    held = await engine.send(queue="sms")
    assert await engine.state(held) == "pending"
    await limits.put(ADMIN, "x", {"scope": {"queue": "sms"}, "limit": "5/h"})
    assert (await engine.ended(held))["state"] == "completed"
    assert (await limits.get(ADMIN, "x"))["used"] == 2


# -- on paper


@pytest.mark.parametrize(
    ("body", "takes", "per_hour"),
    [
        ({"limits": ["20/min"], "count": 41}, 120.0, 1200.0),
        ({"limits": ["20/min", "200/h"], "count": 201}, 3600.0, 200.0),
        ({"interval": "2s", "count": 11}, 20.0, 1800.0),
        ({"interval": 2, "jitter": 0.5, "count": 11}, 25.0, 1440.0),
        ({"concurrency": 2, "duration": 0.5, "count": 9}, 2.0, 14_400.0),
        ({"limits": ["1000000/day"], "count": 1_000_001}, 86_400.0, 1_000_000 / 24),
        ({"count": 5}, 0.0, None),
    ],
)
async def test_a_simulation(engine: Engine, body: Any, takes: float, per_hour: float | None) -> None:
    answer = await engine.service.limits.simulate(role("viewer"), body)
    assert answer["takes"] == takes
    assert answer["sustained"]["per_hour"] == (None if per_hour is None else pytest.approx(per_hour))
    first, last = (datetime.fromisoformat(answer[name]) for name in ("first", "last"))
    assert (last - first).total_seconds() == takes


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"/count"}),
        ({"count": 0}, {"/count"}),
        ({"count": 1, "limits": ["1/s", "x"]}, {"/limits/1"}),
        ({"count": 1, "limits": "1/s"}, {"/limits"}),
        ({"count": 1, "jitter": -1, "concurrency": 0, "speed": 1}, {"/jitter", "/concurrency", "/speed"}),
    ],
)
async def test_a_wrong_simulation(engine: Engine, body: Any, wrong: set[str]) -> None:
    with pytest.raises(InvalidError) as error:
        await engine.service.limits.simulate(ADMIN, body)
    assert fields(error) == wrong


# -- templates


async def test_a_template_is_put_previewed_used_and_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        templates = engine.service.templates
        put = await templates.put(ACME, "hello", {"text": "Hello {{ name }}", "html": "<b>{{ name }}</b>"})
        assert put == {
            "tenant": "acme", "name": "hello", "subject": None, "text": "Hello {{ name }}",
            "html": "<b>{{ name }}</b>",
        }  # fmt: skip
        filled = await templates.preview(ACME, "hello", {"variables": {"name": "<Ada>"}})
        assert filled == {"subject": None, "text": "Hello <Ada>", "html": "<b>&lt;Ada&gt;</b>"}
        with pytest.raises(InvalidError, match="/variables"):
            await templates.preview(ACME, "hello", {})
    async with running(tmp_path) as engine:
        templates = engine.service.templates
        assert await templates.get(ACME, "hello") == put
        assert (await templates.list(OTHER))["items"] == []
        assert (await templates.list(ADMIN))["items"] == [put]
        for call in (templates.get(OTHER, "hello"), templates.delete(OTHER, "hello"),
                     templates.preview(OTHER, "hello", {}), templates.get(ACME, "helo")):  # fmt: skip
            with pytest.raises(NotFoundError):
                await call
        await templates.delete(ACME, "hello")
        assert (await templates.list(ACME))["items"] == []
        assert await engine.store.documents("template") == []


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {""}),
        ([], {""}),
        ({"text": "Hello {{ name"}, {"/text"}),
        ({"text": 5, "txt": ""}, {"/text", "/txt"}),
        ({"text": None}, {""}),
    ],
)
async def test_a_wrong_template(engine: Engine, body: Any, wrong: set[str]) -> None:
    with pytest.raises(InvalidError) as error:
        await engine.service.templates.put(ADMIN, "x", body)
    assert fields(error) == wrong
    with pytest.raises(DeniedError):
        await engine.service.templates.put(role("operator"), "x", {"text": "hello"})


async def test_a_flood_wait_outlives_the_removal_of_its_account(engine: Engine) -> None:
    engine.script.outcomes = [RateLimited(3_600_000)]
    await engine.send(account="a0")
    await engine.event("account-status", lambda event: event.data["state"] == "flooded")
    for pool in ("default", "other"):
        await engine.service.accounts.delete(ADMIN, "a0")
        await engine.account("a0", shared=True, pool=pool)
        view = await engine.service.accounts.get(ADMIN, "a0")
        assert (view["state"], [reason["kind"] for reason in view["reasons"]]) == ("flooded", ["flood-wait"])


async def test_limits_are_changed_in_full_although_the_disk_fails_halfway(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, failures = engine.store, engine.store.settle, [UnavailableError("the disk is full")] * 2

    async def settle(*given: Any) -> list[int]:
        if failures and not any(given[:4]):
            raise failures.pop()
        return await real(*given)

    monkeypatch.setattr(store, "settle", settle)
    await engine.account("a0", shared=True, limits=["5/h"])
    assert (await engine.service.accounts.get(ADMIN, "a0"))["reasons"] == []
    failures.append(UnavailableError("the disk is full"))
    await engine.service.limits.put(ADMIN, "all", {"scope": {"global": True}, "limit": "1/h"})
    assert (await engine.service.limits.get(ADMIN, "all"))["used"] == 0
    assert (await engine.ended(await engine.send(account="a0")))["state"] == "completed"
