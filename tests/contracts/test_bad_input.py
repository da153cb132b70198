"""Bad input on every call of the real server: refused with the field's name, nothing stored, never a 500."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from paceline.api.routes import PREFIX
from tests.contracts.bad_place import LATER, PEER, Place, placed

Row = tuple[str, str]
"""A field and the JSON that stands there."""

MAIL: Final[dict[str, Any]] = {"channel": "smtp", "to": "ada@example.com", "text": "x", "delay": "1h"}
HOOK: Final[dict[str, Any]] = {
    "channel": "webhook",
    "to": "https://example.com/",
    "payload": 1,
    "delay": "1h",
}
BOT: Final[dict[str, Any]] = {"channel": "telegram-bot", "to": "1", "text": "x", "delay": "1h"}
NOT_A_TEXT = ("1", "true", "[]", "{}", "1.5")
CONTROLS = (
    '"a\\u0000"',
    '"a\\rb"',
    '"a\\nb"',
    '"a\\r\\nBcc: b@example.com"',
    '"a\\u001b[2J"',
    '"a\\u2028b"',
    '"a\\u0085b"',
)
HUGE = "1" + "0" * 400


def every(fields: str, *values: str) -> list[Row]:
    return [(field, value) for field in fields.split() for value in values]


COMMON: list[Row] = [
    *every("queue account pool campaign template source group kind idempotency_key", *NOT_A_TEXT, '""', *CONTROLS),
    *every("queue account pool campaign template", '"a b"', '"../x"', '"-a"', f'"{"x" * 129}"'),
    *every("source group kind idempotency_key", f'"{"x" * 257}"', f'"{"x" * 10_240}"'),
    *every("priority", "11", "-1", "5.5", '"urgent"', "true", "[]", HUGE),
    *every("max_attempts", "0", "101", "1.5", '"3"', "true", HUGE),
    *every("delay timeout", '"soon"', "-1", "true", "[]", '"401d"', HUGE, "1e300"),
    *every("scheduled_at expires_at", '"2030-01-01T00:00:00"', '"2020-01-01T00:00:00Z"', '"9999-12-31T23:59:59Z"',
           '"2030-01-01T00:00:60Z"', '"2030-02-30T00:00:00Z"', '"2030-01-01T24:00:00Z"', "1893456000000", '"tomorrow"',
           '"2030-01-01T00:00:00+99:99"', "true", '""'),
    *every("metadata variables", '"x"', "[]", "1"),
    *every("backoff", '"x"', "[]", "{}", '{"type":"fixed","delay":"8d"}', '{"type":"list","delays":[]}',
           '{"type":"exponential","factor":' + HUGE + "}", '{"type":"fixed","dely":1}'),
    *every("callback_url", "1", '"ftp://example.com/"', '"http://127.0.0.1/"', '"http://[::1]/"', '""', *CONTROLS),
    *every("tenant", "1", '"a b"', '""', '"a\\u0000"'),
    ("channel", '"handlr"'), ("channel", "null"), ("channel", "1"), ("channel", "[]"),
    ("prioritie", "1"), ("a/b~c", "1"),
]  # fmt: skip
ADDRESSES: list[Row] = [
    *every("to", '""', "1", "[]", '["a@example.com", 1]', '"a"', '"a@"', '"@example.com"', '"a@b@example.com"', '"a@example.com, b@example.com"',
           '"\\"a\\nb\\"@example.com"', '"\\u202ea@example.com"', f'"{"a" * 320}@example.com"', '"-a@-example.com"', *CONTROLS),
    *every("subject", *NOT_A_TEXT, *CONTROLS),
    *every("text html", *NOT_A_TEXT, '"a\\u0000b"'),
    *every("from reply_to", *CONTROLS, '"nobody"', '"a@example.com, b@example.com"'),
    *every("cc bcc", '["a"]', '["a@example.com\\r\\nX: y"]', "1"),
    *every("headers", '{"X-A": "b\\r\\nBcc: c@example.com"}', '{"X-A\\r\\nB": "c"}', '{"X A": "b"}', '{"Bcc": "a@example.com"}', "[]"),
    *every("attachments", '[{"path": "/etc/passwd"}]', '[{"filename": "a\\r\\nb", "content": "eA=="}]', '[{"filename": "a", "content": "%"}]', "{}"),
]  # fmt: skip
URLS: list[Row] = every(
    "to", *(json.dumps(url) for url in (
        "http://127.0.0.1/", "http://localhost/", "http://localhost./", "http://a.localhost/", "http://10.0.0.1/", "http://192.168.1.1/",
        "http://172.16.0.1/", "http://169.254.169.254/latest/", "http://100.64.0.1/", "http://0.0.0.0/", "http://[::1]/", "http://[::]/",
        "http://[fe80::1]/", "http://[fd00::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
        "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.1./",
        "http://\uff11\uff12\uff17.0.0.1/", "http://user:pass@example.com/", "http://example.com@127.0.0.1/", "ftp://example.com/",
        "file:///etc/passwd", "javascript:alert(1)", "//example.com/", "example.com", "http://", "http:///x", "http://a b/",
        "http://example.com:0/", "http://example.com:99999/", "http://example.com\\@127.0.0.1/", "http://example.com/\r\nHost: x",
        "http://example.com/\u0000", "http://-a.example/", "http://" + "a" * 64 + ".example/", "https://example.com/" + "x" * 2100, "",
    ))
)  # fmt: skip
ACCOUNT: list[Row] = [
    *every("channel", '"smpt"', "1", "[]"),
    *every("settings", "1", "[]", '{"hots":"x"}', '{"host":"a\\r\\nb","from":"a@example.com"}', '{"host":"a","from":"a\\nb"}',
           '{"host":"a","from":"a@example.com","port":' + HUGE + "}", '{"host":"a","from":"a@example.com","port":0}',
           '{"host":"a","from":"a@example.com","security":"tsl"}', '{"host":"a\\u0000","from":"a@example.com"}'),
    *every("limits", '"1/s"', '["0/s"]', '["1/0s"]', '["-1/s"]', '["x"]', "[1]", '["1/s", "1/fortnight"]', '["99999999999/s"]', "{}"),
    *every("interval", '"x"', "-1", '"32d"', HUGE, "true"),
    *every("jitter", '"x"', "-1", "11", HUGE, "1e300", "true"),
    *every("concurrency", "0", "1.5", '"1"', HUGE, "true"),
    *every("quota", "1", "[]", "{}", '{"day":0}', '{"day":1,"zone":"Mars"}', '{"day":1,"zone":"../../etc/passwd"}', '{"dya":1}',
           '{"day":1,"zone":"a\\u0000"}'),
    *every("pool", '""', '"a b"', "1", '"a\\u0000"'), *every("enabled shared", '"yes"', "1"), ("limitz", "[]"),
]  # fmt: skip
LIMIT: list[Row] = [
    *every("limit", "1", "null", '"0/s"', '"x"', "[]", '"1/s\\u0000"'),
    *every("scope", "1", "{}", "null", '{"global":1}', '{"global":true,"queue":"a"}', '{"queu":"a"}', '{"account":"a"}', '{"queue":"a b"}',
           '{"channel":"pigeon"}', '{"recipient":"a\\nb"}', '{"group":1}', '{"tenant":"a\\u0000"}'),
    ("limt", '"1/s"'),
]  # fmt: skip
QUEUE: list[Row] = [
    *every("concurrency", "0", "1.5", '"1"', HUGE), *every("max_attempts", "0", "101", "null"),
    *every("timeout", '"x"', "0", "null", HUGE), *every("backoff", "1", "{}", "null"),
    *every("retention", "1", '{"completed":"x"}', '{"count":-1}', '{"fail":1}'), ("concurency", "1"),
]  # fmt: skip
PATCH: list[Row] = [
    *every("priority", "11", '"x"', "null"), *every("scheduled_at", '"x"', '"2030-02-30T00:00:00Z"', "1"),
    *every("expires_at", '"2020-01-01T00:00:00Z"', "1"), *every("account", '"a b"', "1", '"nobody"'), ("text", '"x"'),
]  # fmt: skip
ACT: list[Row] = [
    *every("action", '"cancle"', "1", "null"), *every("filter", "1", "[]", '{"stat":"x"}', '{"state":"x"}', '{"priority":11}', '{"q":"a\\u0000"}',
           '{"created_from":"x"}'),
    *every("changes", "1"), ("idz", "[]"),
]  # fmt: skip
TEMPLATE: list[Row] = [
    *every("subject text html", "1", "[]", '"{{"', '"{% for %}"', '"{% include \'a\' %}{{"', '"{{ x | nofilter }}"'), ("txt", '"x"'),
]  # fmt: skip
KEY: list[Row] = [
    *every("name", "null", "1", '""', '"a b"', '"a\\u0000"', f'"{"x" * 129}"'), *every("role", "null", '"boss"', "1"),
    *every("tenant", "1", '""', '"a b"', '"a\\r\\n"'), ("rol", '"admin"'),
]  # fmt: skip
SIMULATION: list[Row] = [
    *every("limits", '["x"]', "1"), *every("jitter", HUGE, "-1", '"x"'), *every("interval", '"x"', HUGE), *every("count", "0", HUGE, '"x"'),
    *every("concurrency", "0", HUGE), ("limitz", "1"),
]  # fmt: skip
TABLES: Final[list[tuple[str, str, str, dict[str, Any], list[Row]]]] = [
    ("message", "POST", "/messages", LATER, COMMON),
    ("mail", "POST", "/messages", MAIL, ADDRESSES),
    ("hook", "POST", "/messages", HOOK, URLS),
    ("bot", "POST", "/messages", BOT, every("to", '""', '"not a chat"', "1.5", '["1"]', *CONTROLS) + every("text", "1", f'"{"x" * 5000}"', '""')),
    ("account", "PUT", "/accounts/new", PEER, ACCOUNT),
    ("limit", "PUT", "/limits/new", {"scope": {"global": True}, "limit": "1/s"}, LIMIT),
    ("queue", "PUT", "/queues/new", {}, QUEUE),
    ("patch", "PATCH", "/messages/{id}", {}, PATCH),
    ("act", "POST", "/messages/actions", {"action": "cancel", "filter": {"queue": "email"}}, ACT),
    ("template", "PUT", "/templates/new", {}, TEMPLATE),
    ("key", "POST", "/keys", {"name": "new", "role": "viewer"}, KEY),
    ("simulation", "POST", "/limits/simulate", {"limits": ["1/s"], "count": 5}, SIMULATION),
    ("settle", "POST", "/messages/{id}/settle", {}, [*every("as", "null", '"sent"', "1"), ("az", "1")]),
    ("clean", "POST", "/queues/email/clean", {}, [*every("grace", "-1", "1.5", '"x"', HUGE), *every("type", "1", '"waiting-room"')]),
]  # fmt: skip
BODIES: Final[list[tuple[bytes, int]]] = [
    (b"", 400), (b"  ", 400), (b"{", 400), (b"{}{}", 400), (b'{"a":NaN}', 400), (b'{"a":Infinity}', 400), (b'{"a":1e400}', 400), (b"\xff\xfe{", 400),
    (b'{"a":' + b"9" * 5000 + b"}", 400), (b'{"a":"\\ud800"}', 400), (b'{"a":"\x00"}', 400), (b"[" * 100_000, 400), (b'{"a":' * 50_000, 400),
    (b'{"payload":' + b"[" * 101 + b"]" * 101 + b"}", 400), (b"[]", 422), (b"1", 422), (b'"x"', 422), (b"null", 422), (b"\x1f\x8b\x08\x00abc", 400),
]  # fmt: skip
QUERIES: Final[list[tuple[str, str]]] = [
    *[(path + name + "=" + value, "/" + name) for path in ("/messages?", "/messages/export?format=csv&") for name, values in {
        "state": ("x", "%00", ""), "priority": ("11", "x", "-1"), "created_from": ("x", "2030-01-01"), "created_to": ("x", ""),
        "q": ("%00", "x" * 201, ""), "to": ("%0d%0a", ""), "queue": ("%00", "x" * 3000, ""), "tenant": ("a%20b",), "stat": ("1",),
    }.items() for value in values],
    ("/messages?limit=-1", "/limit"), ("/messages?limit=1000000000", "/limit"), ("/messages?limit=1&limit=2", "/limit"), ("/messages?cursor=%00", "/cursor"),
    ("/messages?cursor=abc", "/cursor"), ("/messages?api_key=pk_1", "/api_key"), ("/messages/export?format=xml", "/format"), ("/messages/export", "/format"),
    ("/events?types=sent", "/types"), ("/events?last_event_id=x", "/last_event_id"), ("/events?key=pk_1", "/key"), ("/stats/failures?by=colour", "/by"),
    ("/queues/email/jobs?status=late", "/status"), ("/queues/email/jobs?start=-1", "/start"), ("/queues/email/jobs?end=1e3", "/end"),
    ("/accounts?limit=0", "/limit"), ("/accounts?cursor=abc", "/cursor"), ("/messages?q=%ff", ""), ("/messages?q=%ED%A0%80", ""),
]  # fmt: skip


@pytest.fixture
async def sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Place]:
    async with placed(tmp_path, caplog) as place:
        yield place


def body(base: dict[str, Any], field: str, value: str) -> bytes:
    parts = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in base.items() if k != field]
    return ("{" + ", ".join([*parts, f"{json.dumps(field)}: {value}"]) + "}").encode()


def pointers(errors: Iterable[dict[str, str]]) -> list[str]:
    return [error["field"] for error in errors]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table[0])
async def test_a_wrong_field_is_named_and_nothing_is_stored(
    sweep: Place, table: tuple[str, str, str, dict[str, Any], list[Row]]
) -> None:
    _, method, path, base, rows = table
    before = await sweep.stored()
    for field, value in rows:
        answer = await sweep.ask(method, path, body(base, field, value))
        place = "/" + field.replace("~", "~0").replace("/", "~1")
        named = pointers(answer.is_problem(422)["errors"])
        assert any(one == place or one.startswith(place + "/") for one in named), (
            field,
            value[:80],
            answer.body,
        )
    assert await sweep.stored() == before


async def test_a_batch_refuses_each_wrong_item_by_itself(sweep: Place) -> None:
    rows = [row for row in COMMON if row[0] != "a/b~c"]
    before = await sweep.stored()
    items = b", ".join(body(LATER, field, value) for field, value in rows)
    lines = b"\n".join(body(LATER, field, value) for field, value in rows)
    one = await sweep.ask("POST", "/messages/batch", b'{"messages": [' + items + b"]}")
    two = await sweep.ask("POST", "/messages/batch", lines, **{"Content-Type": "application/x-ndjson"})
    for answer in (one, two):
        assert answer.status == 202, answer.body
        assert answer.json["accepted"] == []
        assert [each["index"] for each in answer.json["rejected"]] == list(range(len(rows)))
        for (field, _), each in zip(rows, answer.json["rejected"], strict=True):
            assert any(at.startswith("/" + field) for at in pointers(each["errors"])), each
    assert await sweep.stored() == before


@pytest.mark.parametrize("path", ["/messages", "/messages/batch", "/messages/actions", "/keys"])
async def test_what_is_no_json_object_is_refused(sweep: Place, path: str) -> None:
    before = await sweep.stored()
    for data, status in BODIES:
        answer = await sweep.ask("POST", path, data)
        answer.is_problem(answer.status)
        assert answer.status in {status, 400, 422}, (data[:60], answer.body)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        (await sweep.ask("POST", path, json.dumps(LATER).encode(), **{"Content-Type": kind})).is_problem(415)
    assert await sweep.stored() == before


async def test_a_body_that_is_too_large_is_refused(sweep: Place) -> None:
    before = await sweep.stored()
    large = json.dumps(LATER | {"payload": "x" * 300_000}).encode()
    (await sweep.ask("POST", "/messages", large)).is_problem(413)
    (await sweep.ask("POST", "/messages/batch", io.BytesIO(b" " * 1_100_000))).is_problem(413)
    (await sweep.ask("PUT", "/templates/new", large)).is_problem(413)
    assert await sweep.stored() == before


async def test_ten_thousand_and_one_messages_are_one_too_many(sweep: Place) -> None:
    before = await sweep.stored()
    whole = b'{"messages": [' + b"{}," * 10_000 + b"{}]}"
    assert (await sweep.ask("POST", "/messages/batch", whole)).fields() == ["/messages"]
    kind = {"Content-Type": "application/x-ndjson"}
    assert (await sweep.ask("POST", "/messages/batch", b"{}\n" * 10_001, **kind)).fields() == ["/messages"]
    assert (await sweep.ask("POST", "/messages/batch", b'{"messages": [], "default": {}}')).fields() == [
        "/default"
    ]
    assert await sweep.stored() == before


@pytest.mark.parametrize(("path", "field"), QUERIES)
async def test_a_wrong_parameter_is_named(sweep: Place, path: str, field: str) -> None:
    async with asyncio.timeout(10):
        assert (await sweep.ask("GET", path)).fields() == [field]


async def test_names_in_addresses_are_checked(sweep: Place) -> None:
    before = await sweep.stored()
    bodies = {
        "/accounts/": PEER,
        "/limits/": {"scope": {"global": True}, "limit": "1/s"},
        "/queues/": {},
        "/templates/": {"text": "x"},
    }
    for name in ("a%00", "%0d%0a", "x" * 129, "a%20b", "%F0%9F%98%80", "-a"):
        for path, data in bodies.items():
            assert "/name" in (await sweep.ask("PUT", path + name, json.dumps(data).encode())).fields(), (
                path + name
            )
            if path != "/queues/":
                (await sweep.ask("GET", path + name)).is_problem(404)
        for path in ("/messages/", "/batches/"):
            (await sweep.ask("GET", path + name)).is_problem(404)
        (await sweep.ask("DELETE", "/keys/" + name)).is_problem(404)
    assert await sweep.stored() == before


async def test_text_of_any_kind_in_a_payload_comes_back_as_it_was(sweep: Place) -> None:
    value: object
    for value in (
        "a\u0000b",
        "\r\n",
        "\u202e",
        "<script>alert(1)</script>",
        "=1+1",
        "\U0001f600",
        2**70,
        -(2**63),
        10**30,
        1e300,
        [[[]]],
    ):
        answer = await sweep.call(
            "POST", PREFIX + "/messages", LATER | {"payload": {"a": value}, "metadata": {"b": value}}
        )
        assert answer.status == 202, (value, answer.body)
        shown = (await sweep.ask("GET", "/messages/" + answer.json["id"])).json
        assert (shown["payload"], shown["metadata"]) == ({"a": value}, {"b": value})


async def test_templates_can_cost_and_reach_nothing(sweep: Place) -> None:
    for text in (
        "{{ x.__class__ }}",
        "{{ 9**99999999 }}",
        "{% for a in range(999999999) %}x{% endfor %}",
        "{{ 'x' * 999999999 }}",
        "{{ y }}",
    ):
        assert (await sweep.call("PUT", PREFIX + "/templates/t", {"text": text})).status == 200
        async with asyncio.timeout(5):
            assert (
                await sweep.call("POST", PREFIX + "/templates/t/preview", {"variables": {"x": 1}})
            ).fields() == ["/variables"]
