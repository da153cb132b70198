"""The HTTP contract on the real engine with a real store: what a client sees from outside."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline import wiring
from paceline.api.routes import ENDPOINTS, PREFIX
from paceline.channels.handler import Fail, Job
from paceline.config import Settings
from tests.contracts.test_api_support import Client, Reply, served

API = "/api/v1"
LATER = {"channel": "handler", "kind": "echo", "delay": "1h"}


async def echo(job: Job) -> Any:
    return job.payload


async def fail(job: Job) -> None:
    raise Fail("no such number", "E404")


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Client]:
    settings = Settings(data=tmp_path)
    service = await wiring.open_service(settings, {"echo": echo, "fail": fail})
    try:
        key = (tmp_path / "admin.key").read_text().strip()
        async with served(service, settings, key) as (client, _):
            yield client
    finally:
        await service.close(1)


async def tenant_key(call: Client, tenant: str | None, role: str = "admin") -> Client:
    answer = await call("POST", API + "/keys", {"name": f"{tenant}-{role}", "role": role, "tenant": tenant})
    assert answer.status == 201
    return call.as_(answer.json["key"])


async def send(call: Client, **fields: Any) -> str:
    answer = await call("POST", API + "/messages", LATER | fields)
    assert answer.status == 202, answer.body
    return str(answer.json["id"])


def good(answer: Reply, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return answer.json


# -- messages


async def test_a_message_is_taken_sent_and_shown(call: Client) -> None:
    body = {"channel": "handler", "kind": "echo", "payload": {"n": 1}, "group": "g"}
    ended = good(await call("POST", API + "/messages?wait=10", body))
    assert (ended["state"], ended["result"]["value"]) == ("completed", {"n": 1})
    shown = good(await call("GET", f"{API}/messages/{ended['id']}"))
    assert shown["payload"] == {"n": 1}
    assert shown["created_at"].endswith("Z")
    trace = good(await call("GET", f"{API}/messages/{ended['id']}/trace"))
    assert {node["name"] for node in trace["nodes"]} >= {"queue", "process", "send"}
    assert trace["statistics"]["success_rate"] == 1.0


async def test_a_message_that_waits_says_why_and_is_changed_and_withdrawn(call: Client) -> None:
    receipt = good(await call("POST", API + "/messages", LATER), 202)
    assert receipt["state"] == "scheduled"
    assert receipt["eta"] is not None
    assert receipt["why"][0]["until"] is not None
    place = f"{API}/messages/{receipt['id']}"
    assert good(await call("GET", place + "/why"))["reasons"]
    assert good(await call("PATCH", place, {"priority": "critical"}))["priority"] == 10
    assert (await call("PATCH", place, {"prioritie": 1})).fields() == ["/prioritie"]
    assert good(await call("POST", place + "/cancel"))["state"] == "cancelled"
    (await call("POST", place + "/cancel")).is_problem(409)
    assert good(await call("POST", place + "/retry"))["state"] in {"pending", "processing", "completed"}
    (await call("POST", place + "/settle", {"as": "completed"})).is_problem(409)
    assert (await call("POST", place + "/settle", {"as": "sent"})).fields() == ["/as"]


async def test_a_message_that_failed_keeps_the_providers_words(call: Client) -> None:
    ended = good(await call("POST", API + "/messages?wait=10", {"channel": "handler", "kind": "fail"}))
    assert ended["state"] == "failed"
    assert (ended["error"]["code"], ended["error"]["text"]) == ("E404", "no such number")
    failures = good(await call("GET", API + "/stats/failures?by=code"))
    assert failures["items"][0]["code"] == "E404"


async def test_the_same_key_answers_the_first_message_and_another_body_is_refused(call: Client) -> None:
    body = LATER | {"idempotency_key": "once"}
    first, second = [good(await call("POST", API + "/messages", body), 202) for _ in range(2)]
    assert (second["id"], second["duplicate"], first["duplicate"]) == (first["id"], True, False)
    (await call("POST", API + "/messages", body | {"priority": 1})).is_problem(409)


async def test_fifty_at_once_with_one_key_are_one_message(call: Client) -> None:
    body = LATER | {"idempotency_key": "fifty"}
    answers = await asyncio.gather(*(call("POST", API + "/messages", body) for _ in range(50)))
    receipts = [good(answer, 202) for answer in answers]
    assert len({receipt["id"] for receipt in receipts}) == 1
    assert sum(not receipt["duplicate"] for receipt in receipts) == 1


async def test_a_wrong_message_names_every_field(call: Client) -> None:
    answer = await call("POST", API + "/messages", LATER | {"priority": 11, "chanel": "x", "delay": -1})
    assert set(answer.fields()) == {"/priority", "/chanel", "/delay"}
    assert good(await call("GET", API + "/messages"))["items"] == []


async def test_a_batch_takes_the_good_and_names_the_bad(call: Client) -> None:
    messages = [{}] * 500 + [{"priority": "x"}, 7] + [{}] * 498
    answer = await call("POST", API + "/messages/batch", {"messages": messages, "defaults": LATER})
    result = good(answer, 202)
    assert [each["index"] for each in result["rejected"]] == [500, 501]
    assert len(result["accepted"]) == 998
    batch = good(await call("GET", f"{API}/batches/{result['batch']}"))
    assert batch["counts"]["scheduled"] == 998
    (await call("POST", API + "/messages/batch", {"messages": []})).is_problem(422)


async def test_lines_are_a_batch_too(call: Client) -> None:
    lines = "\n".join(["", json.dumps(LATER), "{", json.dumps(LATER | {"x": 1}), json.dumps(LATER)])
    headers = {"Content-Type": "application/x-ndjson"}
    result = good(await call("POST", API + "/messages/batch", data=lines.encode(), headers=headers), 202)
    assert [each["index"] for each in result["accepted"]] == [0, 3]
    assert [(each["index"], each["errors"][0]["field"]) for each in result["rejected"]] == [
        (1, ""),
        (2, "/x"),
    ]


async def test_a_list_is_paged_to_its_end(call: Client) -> None:
    sent = [await send(call, group="a" if n % 2 else "b") for n in range(7)]
    seen, cursor = [], ""
    for _ in range(10):
        page = good(await call("GET", f"{API}/messages?limit=3{cursor}"))
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == sent[::-1]
    assert len(good(await call("GET", API + "/messages?group=a"))["items"]) == 3
    assert len(good(await call("GET", API + "/messages?group=a&group=b&state=scheduled"))["items"]) == 7
    assert (await call("GET", API + "/messages?cursor=%27%20or%201=1")).fields() == ["/cursor"]
    assert (await call("GET", API + "/messages?state=done")).fields() == ["/state"]


async def test_per_cent_and_underscore_are_letters_in_a_search(call: Client) -> None:
    for text in ("100%", "100 of", "a_b", "aXb"):
        await send(call, to=text)
    found = good(await call("GET", API + "/messages?q=100%25"))["items"]
    assert [item["to"] for item in found] == ["100%"]
    found = good(await call("GET", API + "/messages?q=a_b"))["items"]
    assert [item["to"] for item in found] == ["a_b"]


async def test_an_action_tells_first_and_refuses_when_something_changed(call: Client) -> None:
    for _ in range(3):
        await send(call, source="s")
    order = {"action": "cancel", "filter": {"source": ["s"]}, "expect": 3}
    dry = good(await call("POST", API + "/messages/actions?dry_run=true", order))
    assert (dry["matched"], dry["would_change"], len(dry["examples"])) == (3, 3, 3)
    await send(call, source="s")
    (await call("POST", API + "/messages/actions", order)).is_problem(409)
    assert good(await call("POST", API + "/messages/actions", order | {"expect": 4}))["changed"] == 4


async def test_an_export_holds_what_matches(call: Client) -> None:
    await send(call, to="+491701234567", source="s", metadata={"a": "=1"})
    await send(call, source="other")
    lines = (await call("GET", API + "/messages/export?format=jsonl&source=s")).body.splitlines()
    assert [json.loads(line)["to"] for line in lines] == ["+491701234567"]
    table = (await call("GET", API + "/messages/export?format=csv&source=s")).body.decode()
    assert table.count("\r\n") == 2
    assert ",+491701234567," in table
    assert (await call("GET", API + "/messages/export?format=csv&state=x")).fields() == ["/state"]


async def test_a_message_is_deleted(call: Client) -> None:
    id_ = await send(call)
    answer = await call("DELETE", f"{API}/messages/{id_}")
    assert (answer.status, answer.body) == (204, b"")
    (await call("GET", f"{API}/messages/{id_}")).is_problem(404)


# -- what may be sent may be read again

PAYLOADS = [
    "\u0000",
    "<script>alert(1)</script>",
    "\U0001f469\u200d\U0001f469\u200d\U0001f466 e\u0301 \u202e \u2028",
    "x" * 1_000_000,
    2**63,
    -(2**63) - 1,
    1.5,
    [[[[]]]],
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
async def test_what_is_accepted_is_shown_unchanged(call: Client, payload: Any) -> None:
    answer = await call("POST", API + "/messages", LATER | {"payload": payload})
    if answer.status == 422:
        answer.is_problem(422)
        return
    shown = good(await call("GET", f"{API}/messages/{good(answer, 202)['id']}"))
    assert shown["payload"] == payload


# -- accounts, limits, queues, templates, keys


async def test_an_account_shows_no_secret(call: Client) -> None:
    body = {
        "channel": "telegram-bot",
        "settings": {"token": "1:CANARY"},
        "limits": ["20/min"],
        "interval": "2s",
    }
    put = await call("PUT", API + "/accounts/bot", body)
    shown = await call("GET", API + "/accounts/bot")
    listed = await call("GET", API + "/accounts?limit=1000")
    assert good(put)["state"] == good(shown)["state"] == "ready"
    assert "bot" in [item["name"] for item in good(listed)["items"]]
    for answer in (put, shown, listed):
        assert b"CANARY" not in answer.body
    assert good(await call("POST", API + "/accounts/bot/pause"))["state"] == "paused"
    assert good(await call("POST", API + "/accounts/bot/resume"))["state"] == "ready"
    assert good(await call("GET", API + "/accounts/bot/queue"))["total"] == 0
    assert good(await call("DELETE", API + "/accounts/bot/queue?status=failed")) == {"removed": 0}
    assert (await call("DELETE", API + "/accounts/bot")).status == 204
    problem = (await call("GET", API + "/accounts/bott")).is_problem(404)
    assert "bott" in problem["detail"]


async def test_a_wrong_account_changes_nothing(call: Client) -> None:
    answer = await call(
        "PUT", API + "/accounts/bot", {"channel": "telegram-bot", "limits": ["0/min"], "limit": 1}
    )
    assert {"/limits/0", "/limit"} <= set(answer.fields())
    (await call("GET", API + "/accounts/bot")).is_problem(404)


async def test_limits_are_kept_and_played_on_paper(call: Client) -> None:
    body = {"scope": {"queue": "sms"}, "limit": "100/s"}
    assert good(await call("PUT", API + "/limits/sms", body))["limit"] == "100/s"
    assert good(await call("GET", API + "/limits/sms"))["scope"] == {"queue": "sms"}
    assert [item["name"] for item in good(await call("GET", API + "/limits"))["items"]] == ["sms"]
    played = good(await call("POST", API + "/limits/simulate", {"limits": ["1/min"], "count": 3}))
    assert played["takes"] == pytest.approx(120, abs=1)
    assert (await call("DELETE", API + "/limits/sms")).status == 204
    (await call("GET", API + "/limits/sms")).is_problem(404)


async def test_queues_have_the_old_platforms_calls(call: Client) -> None:
    id_ = await send(call, queue="sms")
    status = good(await call("GET", API + "/queues/status"))
    counts = {queue["name"]: queue["counts"] for queue in status["queues"]}
    assert counts["sms"]["delayed"] == 1
    assert set(status["summary"]) == {
        "totalQueues", "totalWaiting", "totalActive", "totalCompleted", "totalFailed",
    }  # fmt: skip
    jobs = good(await call("GET", API + "/queues/sms/jobs?status=delayed&start=0&end=10"))
    assert [job["id"] for job in jobs["items"]] == [id_]
    assert good(await call("GET", f"{API}/queues/sms/jobs/{id_}"))["id"] == id_
    (await call("GET", f"{API}/queues/email/jobs/{id_}")).is_problem(404)
    assert (await call("GET", API + "/queues/sms/jobs?start=0&end=1000")).fields() == ["/end"]
    assert (await call("GET", API + "/queues/sms/jobs?status=done")).fields() == ["/status"]
    assert good(await call("PUT", API + "/queues/sms", {"max_attempts": 5}))["max_attempts"] == 5
    assert good(await call("POST", API + "/queues/sms/pause"))["paused"] is True
    assert good(await call("POST", API + "/queues/sms/resume"))["paused"] is False
    assert good(await call("DELETE", API + "/queues/sms/empty")) == {"removed": 1}
    assert good(await call("POST", API + "/queues/sms/clean", {"grace": 0, "type": "completed"})) == {
        "removed": 0
    }
    assert (await call("POST", API + "/queues/sms/clean", {"grace": -1})).fields() == ["/grace"]
    assert (await call("POST", API + "/queues/sms/clean", {"type": "waiting"})).fields() == ["/type"]
    (await call("DELETE", API + "/queues/nope/empty")).is_problem(404)


async def test_templates_are_kept_and_previewed(call: Client) -> None:
    good(await call("PUT", API + "/templates/hello", {"text": "Hello {{ name }}"}))
    filled = good(await call("POST", API + "/templates/hello/preview", {"variables": {"name": "Ada"}}))
    assert filled["text"] == "Hello Ada"
    assert (await call("POST", API + "/templates/hello/preview", {})).fields() == ["/variables"]
    assert [each["name"] for each in good(await call("GET", API + "/templates"))["items"]] == ["hello"]
    assert (await call("DELETE", API + "/templates/hello")).status == 204
    (await call("GET", API + "/templates/hello")).is_problem(404)


async def test_a_revoked_key_is_worth_nothing_at_once(call: Client) -> None:
    key = await tenant_key(call, "shop", "sender")
    assert (await key("GET", API + "/messages")).status == 200
    assert key.key is not None
    assert key.key.encode() not in (await call("GET", API + "/keys")).body
    assert (await call("DELETE", API + "/keys/shop-sender")).status == 204
    (await key("GET", API + "/messages")).is_problem(401)
    (await key("POST", API + "/messages", LATER)).is_problem(401)


async def test_statistics_scheduler_doctor_and_metrics_answer(call: Client) -> None:
    await send(call)
    assert good(await call("GET", API + "/stats/overview"))["totals"]["scheduled"] == 1
    assert good(await call("GET", API + "/stats/realtime"))["waiting"] == 1
    assert good(await call("POST", API + "/scheduler/stop"))["is_running"] is False
    assert good(await call("GET", API + "/scheduler/status"))["total_queued_subtasks"] == 1
    assert good(await call("POST", API + "/scheduler/start"))["is_running"] is True
    assert good(await call("GET", API + "/doctor"))["checks"]
    assert b"paceline_" in (await call("GET", "/metrics")).body
    assert good(await call("GET", "/health/ready")) == {"status": "ready"}


# -- tenants


async def test_what_belongs_to_another_tenant_does_not_exist(call: Client) -> None:
    """Every address with an id or a name in it, asked by a stranger, answers as for a thing that is not there."""
    owner, stranger = await tenant_key(call, "a"), await tenant_key(call, "b")
    id_ = await send(owner, queue="sms")
    good(
        await owner("PUT", API + "/accounts/mine", {"channel": "telegram-bot", "settings": {"token": "1:T"}})
    )
    good(await owner("PUT", API + "/templates/mine", {"text": "x"}))
    good(await owner("PUT", API + "/limits/mine", {"scope": {"tenant": "a"}, "limit": "1/s"}))
    batch = good(await owner("POST", API + "/messages/batch", {"messages": [LATER]}), 202)["batch"]
    bodies: dict[str, Any] = {
        "/messages/{id}": {"priority": 1}, "/messages/{id}/settle": {"as": "completed"},
        "/accounts/{name}/test": {"to": "1", "text": "x"}, "/templates/{name}/preview": {},
    }  # fmt: skip
    asked = 0
    for endpoint in ENDPOINTS:
        if "{" not in endpoint.path or endpoint.method == "PUT" or "/keys/" in endpoint.path:
            continue
        if endpoint.path.startswith("/queues/") and "{id}" not in endpoint.path:
            continue  # queues are everybody's
        path = endpoint.path.replace("/batches/{id}", f"/batches/{batch}").replace("{id}", id_)
        path = path.replace("{name}", "sms" if path.startswith("/queues") else "mine")
        answer = await stranger(endpoint.method, PREFIX + path, bodies.get(endpoint.path))
        answer.is_problem(404)
        asked += 1
    assert asked > 15
    assert good(await owner("GET", f"{API}/messages/{id_}"))["state"] == "scheduled"


async def test_lists_exports_counts_and_actions_stay_in_the_tenant(call: Client) -> None:
    owner, stranger = await tenant_key(call, "a"), await tenant_key(call, "b")
    id_ = await send(owner, queue="sms", to="SECRET")
    good(
        await owner(
            "PUT", API + "/accounts/SECRET", {"channel": "telegram-bot", "settings": {"token": "1:T"}}
        )
    )
    for path in ("/messages", "/messages/export?format=jsonl", "/accounts", "/stats/overview", "/stats/realtime",
                 "/queues/sms/jobs?status=delayed", "/templates", "/limits", "/keys", "/queues"):  # fmt: skip
        answer = await stranger("GET", API + path)
        assert answer.status == 200, path
        assert b"SECRET" not in answer.body, path
        assert id_.encode() not in answer.body, path
    for wanted in ({"filter": {"queue": ["sms"]}}, {"ids": [id_]}, {"filter": {"tenant": ["a"]}}):
        done = await stranger("POST", API + "/messages/actions", {"action": "cancel", **wanted})
        assert good(done)["changed"] == 0
    assert good(await stranger("DELETE", API + "/queues/sms/empty")) == {"removed": 0}
    answer = await stranger("POST", API + "/messages", LATER | {"tenant": "a"})
    assert answer.fields() == ["/tenant"]
    assert good(await owner("GET", f"{API}/messages/{id_}"))["state"] == "scheduled"


async def test_an_installation_key_acts_for_a_tenant(call: Client) -> None:
    body = {"channel": "telegram-bot", "settings": {"token": "1:T"}}
    good(await call("PUT", API + "/accounts/bot?tenant=shop", body))
    (await call("GET", API + "/accounts/bot")).is_problem(404)
    shop = await tenant_key(call, "shop", "viewer")
    assert good(await shop("GET", API + "/accounts/bot"))["name"] == "bot"
    id_ = await send(call, tenant="shop")
    assert good(await shop("GET", f"{API}/messages/{id_}"))["tenant"] == "shop"
    assert len(good(await call("GET", API + "/messages?tenant=shop"))["items"]) == 1
    assert good(await call("GET", API + "/messages?tenant=other"))["items"] == []


# -- events


async def test_events_tell_a_tenant_its_own_and_are_resumed(call: Client) -> None:
    owner, stranger = await tenant_key(call, "a"), await tenant_key(call, "b")
    url = f"http://127.0.0.1:{call.port}{API}/events?types=message-queued"

    async def heard(client: Client, count: int, **headers: str) -> list[dict[str, str]]:
        sent = {"Authorization": f"Bearer {client.key}"} | headers
        async with client.session.get(url, headers=sent) as response:
            await response.content.readuntil(b"\n\n")
            listening.set()
            frames = [(await response.content.readuntil(b"\n\n")).decode() for _ in range(count)]
            return [dict(line.split(": ", 1) for line in frame.strip().split("\n")) for frame in frames]

    listening = asyncio.Event()
    hearing = asyncio.ensure_future(heard(owner, 2))
    await listening.wait()
    await send(stranger)
    ids = [await send(owner), await send(owner)]
    told = await asyncio.wait_for(hearing, 10)
    assert [json.loads(each["data"])["id"] for each in told] == ids
    again = await asyncio.wait_for(heard(owner, 1, **{"Last-Event-ID": told[0]["id"]}), 10)
    assert again[0]["id"] == told[1]["id"]
