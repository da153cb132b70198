"""Idempotency keys, times and keys of the API that are wrong in every way: the exact answer, and nothing stored."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.bad_place import LATER, Place, placed
from tests.contracts.test_engine_support import running

HALF_A_DAY = "must be a time with a zone, like 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00"
NO_SUCH_DAY = "is not a time that exists in the calendar"
ONE_LINE = "must not contain line breaks, NUL or other control characters"


@pytest.fixture
async def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Place]:
    async with placed(tmp_path, caplog) as place:
        yield place


# -- idempotency keys


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "must have 1 to 256 characters"),
        ("x" * 10_240, "must have 1 to 256 characters"),
        ("\u4e2d" * 257, "must have 1 to 256 characters"),
        ("a\nb", ONE_LINE), ("a\u0000", ONE_LINE), ("a\u2028", ONE_LINE),
        (5, "must be a text"), (True, "must be a text"), (["a"], "must be a text"), ({}, "must be a text"),
    ],
)  # fmt: skip
async def test_a_key_that_is_none_is_refused(place: Place, key: object, problem: str) -> None:
    before = await place.stored()
    answer = await place.api("POST", "/messages", LATER | {"idempotency_key": key})
    assert answer.is_problem(422)["errors"] == [{"field": "/idempotency_key", "problem": problem}]
    assert await place.stored() == before


async def test_keys_that_only_look_alike_are_different_keys(place: Place) -> None:
    alike = ["caf\u00e9", "cafe\u0301", "\u0441af\u00e9", "CAF\u00c9", "caf\u00e9 ", "caf\u00e9\u200b", "\ufb01", "fi",
             "\uff11", "1", "\u202ecaf\u00e9", "x" * 256, "x" * 255]  # fmt: skip
    answers = [await place.api("POST", "/messages", LATER | {"idempotency_key": key}) for key in alike]
    assert [(a.status, a.json["duplicate"]) for a in answers] == [(202, False)] * len(alike)
    assert len({a.json["id"] for a in answers}) == len(alike)
    again = [await place.api("POST", "/messages", LATER | {"idempotency_key": key}) for key in alike]
    assert [a.json["id"] for a in again] == [a.json["id"] for a in answers]
    shown = [(await place.api("GET", f"/messages/{a.json['id']}")).json["idempotency_key"] for a in answers]
    assert shown == alike


async def test_fifty_at_once_are_one_message_and_another_body_is_refused(place: Place) -> None:
    body = LATER | {"idempotency_key": "fifty"}
    whole = {"messages": [body] * 3 + [body | {"priority": 1}]}
    calls = [place.api("POST", "/messages", body) for _ in range(40)]
    batches = [place.api("POST", "/messages/batch", whole) for _ in range(10)]
    answers = await asyncio.gather(*calls, *batches)
    ids = {answer.json["id"] for answer in answers[:40]}
    news = sum(not answer.json["duplicate"] for answer in answers[:40])
    for answer in answers[40:]:
        ids |= {one["id"] for one in answer.json["accepted"]}
        news += sum(not one.get("duplicate") for one in answer.json["accepted"])
        assert [one["index"] for one in answer.json["accepted"]] == [0, 1, 2]
        (refused,) = answer.json["rejected"]
        assert (refused["index"], refused["errors"][0]["field"]) == (3, "/idempotency_key")
    assert (len(ids), news) == (1, 1)
    other = (await place.api("POST", "/messages", body | {"priority": 1})).is_problem(409)
    assert other["detail"] == (
        f"this idempotency key was used for message {ids.pop()} with another body; use a new key for a new message"
    )
    assert len((await place.api("GET", "/messages")).json["items"]) == 2


async def test_a_key_of_another_tenant_is_another_key(place: Place) -> None:
    body = LATER | {"idempotency_key": "same"}
    keys = [None, await place.key("sender", "a"), await place.key("sender", "b")]
    first = [(await place.api("POST", "/messages", body, key)).json for key in keys]
    second = [(await place.api("POST", "/messages", body, key)).json for key in keys]
    assert len({each["id"] for each in first}) == 3
    assert [each["id"] for each in second] == [each["id"] for each in first]
    assert {each["duplicate"] for each in second} == {True}


async def test_a_key_lives_as_long_as_its_message(place: Place) -> None:
    body = LATER | {"idempotency_key": "once"}
    first = (await place.api("POST", "/messages", body)).json["id"]
    assert (await place.api("POST", "/messages/{id}/cancel".replace("{id}", first))).status == 200
    held = await place.api("POST", "/messages", body)
    assert (held.json["id"], held.json["duplicate"]) == (first, True)
    assert (await place.api("DELETE", f"/messages/{first}")).status == 204
    anew = await place.api("POST", "/messages", body)
    assert (anew.json["duplicate"], anew.json["id"] == first) == (False, False)


async def test_a_key_of_an_expired_message_still_answers_it(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        engine.script.free.clear()  # the first holds the only place of the account
        await engine.send()
        soon = engine.later(0.05)
        body: dict[str, Any] = {"idempotency_key": "late", "expires_at": soon}
        gone = await engine.send(**body)
        assert (await engine.ended(gone))["state"] == "expired"
        assert await engine.state(gone) == "expired"
        again: dict[str, Any] = {"idempotency_key": "late"}
        with pytest.raises(Exception, match="with another body"):
            await engine.send(**again)


# -- times

WRONG_TIMES: list[tuple[object, str]] = [
    ("2030-01-01T00:00:00", HALF_A_DAY),
    ("2030-01-01", HALF_A_DAY),
    ("2030-01-01T00:00Z", HALF_A_DAY),
    ("2030-01-01T00:00:60Z", HALF_A_DAY),
    ("2016-12-31T23:59:60Z", HALF_A_DAY),
    ("tomorrow", HALF_A_DAY), ("", HALF_A_DAY), (" 2030-01-01T00:00:00Z", HALF_A_DAY), (1893456000, HALF_A_DAY),
    (1893456000000, HALF_A_DAY), (True, HALF_A_DAY), ("2030-01-01T00:00:00 Europe/Berlin", HALF_A_DAY),
    ("2030-01-01T00:00:00+1", HALF_A_DAY), ("\uff12030-01-01T00:00:00Z", HALF_A_DAY),
    ("2030-01-01T00:00:00Z\n", HALF_A_DAY),
    ("2030-01-01T24:00:00Z", NO_SUCH_DAY), ("2030-02-30T00:00:00Z", NO_SUCH_DAY),
    ("2030-13-01T00:00:00Z", NO_SUCH_DAY), ("2029-02-29T00:00:00Z", NO_SUCH_DAY),
    ("2030-01-01T00:00:00+99:99", NO_SUCH_DAY), ("0000-01-01T00:00:00Z", NO_SUCH_DAY),
    ("9999-12-31T23:59:59Z", "must be before the year 2100"),
    ("9999-12-31T23:59:59-12:00", "must be before the year 2100"),
    ("0001-01-01T00:00:00+14:00", "must be before the year 2100"),
]  # fmt: skip


@pytest.mark.parametrize("field", ["scheduled_at", "expires_at"])
async def test_a_time_that_is_none_is_refused(place: Place, field: str) -> None:
    before = await place.stored()
    base = {name: value for name, value in LATER.items() if name != "delay"}
    for time, problem in WRONG_TIMES:
        answer = await place.api("POST", "/messages", base | {field: time})
        assert answer.is_problem(422)["errors"] == [{"field": f"/{field}", "problem": problem}], time
        answer = await place.api("PATCH", "/messages/{id}", {field: time})
        assert answer.fields() == [f"/{field}"], time
    assert await place.stored() == before


@pytest.mark.parametrize(
    ("times", "field", "problem"),
    [
        ({"scheduled_at": "2020-01-01T00:00:00Z"}, "/scheduled_at", "is in the past; leave it out to send now"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "is in the past: the message would never be sent"),
        ({"scheduled_at": "2030-01-02T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"}, "/expires_at",
         "is not after the moment the message is scheduled for"),
        ({"scheduled_at": "2030-01-01T00:00:00Z", "expires_at": "2030-01-01T02:00:00+02:00"}, "/expires_at",
         "is not after the moment the message is scheduled for"),
        ({"scheduled_at": "2030-01-01T00:00:00Z", "delay": "1h"}, "/delay", "give either scheduled_at or delay, not both"),
    ],
)  # fmt: skip
async def test_times_that_contradict_are_refused(
    place: Place, times: dict[str, str], field: str, problem: str
) -> None:
    before = await place.stored()
    base = {name: value for name, value in LATER.items() if name != "delay"}
    answer = await place.api("POST", "/messages", base | times)
    assert answer.is_problem(422)["errors"] == [{"field": field, "problem": problem}]
    assert await place.stored() == before


async def test_a_time_is_a_moment_whatever_summer_time_does_there(place: Place) -> None:
    """With its distance from UTC an hour that a place skips or has twice names one moment each."""
    base = {name: value for name, value in LATER.items() if name != "delay"}
    for time, moment in (
        ("2030-03-31T02:30:00+01:00", "2030-03-31T01:30:00.000Z"),  # skipped in Berlin: half past three there
        ("2030-10-27T02:30:00+02:00", "2030-10-27T00:30:00.000Z"),  # the first half past two
        ("2030-10-27T02:30:00+01:00", "2030-10-27T01:30:00.000Z"),  # the second
        ("2030-01-01t00:00:00.1239999z", "2030-01-01T00:00:00.123Z"),
        ("2030-01-01 00:00:00-00:00", "2030-01-01T00:00:00.000Z"),
    ):
        answer = await place.api("POST", "/messages", base | {"scheduled_at": time})
        assert answer.status == 202, answer.body
        shown = (await place.api("GET", f"/messages/{answer.json['id']}")).json
        assert shown["scheduled_at"] == moment


# -- keys of the API


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (None, "send a key as 'Authorization: Bearer KEY'"),
        ("{key}x", "this key is not known, or it was revoked"),
        ("{key} ", "this key is not known, or it was revoked"),
        (" {key}", "this key is not known, or it was revoked"),
        ("{key}, {key}", "this key is not known, or it was revoked"),
        ("{KEY}", "this key is not known, or it was revoked"),
        ("k\u00e9y", "the Authorization header must be 'Bearer KEY'"),
        ("x" * 60_000, "the Authorization header must be 'Bearer KEY'"),
        ("", "this key is not known, or it was revoked"),
    ],
)
async def test_a_key_that_is_not_one_opens_nothing(
    place: Place, sent: str | None, detail: str | None
) -> None:
    key = place.call.key or ""
    before = await place.stored()
    headers = (
        {}
        if sent is None
        else {"Authorization": "Bearer " + sent.replace("{key}", key).replace("{KEY}", key.upper())}
    )
    call = place.call.as_(None)
    for method, path in (("POST", "/messages"), ("GET", "/messages"), ("GET", "/doctor")):
        answer = await call(method, "/api/v1" + path, LATER if method == "POST" else None, headers=headers)
        assert answer.is_problem(401)["detail"] == detail
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await place.stored() == before


async def test_a_megabyte_of_key_ends_that_connection_alone(place: Place) -> None:
    before = await place.stored()
    reader, writer = await asyncio.open_connection("127.0.0.1", place.call.port)
    head = b"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
    writer.write(head + b"x" * 1_000_000 + b"\r\nContent-Length: 2\r\n\r\n{}")
    try:
        answer = await reader.read(65_536)
    except ConnectionError:
        answer = b""
    writer.close()
    assert answer.split(b" ")[1:2] in ([b"400"], [b"401"], [b"431"], [])
    assert await place.stored() == before


async def test_a_revoked_key_is_refused_everywhere_at_once(place: Place) -> None:
    key = await place.key("admin", "gone")
    assert (await place.api("POST", "/messages", LATER, key)).status == 202
    assert (await place.api("DELETE", "/keys/admin-gone")).status == 204
    before = await place.stored()
    for method, path in (
        ("POST", "/messages"),
        ("POST", "/messages/batch"),
        ("GET", "/messages"),
        ("GET", "/events"),
    ):
        answer = await place.api(method, path, LATER if method == "POST" else None, key)
        assert answer.is_problem(401)["detail"] == "this key is not known, or it was revoked"
    assert await place.stored() == before
