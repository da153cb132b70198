"""What HTTP alone decides: reading, refusing, headers, roles. The engine behind it is a script."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from paceline.api.bodies import parse
from paceline.api.openapi import document
from paceline.api.routes import ENDPOINTS, INGEST, PREFIX
from paceline.config import Settings
from paceline.engine.keys import ROLES, DeniedError
from paceline.model.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    Problem,
    UnavailableError,
)
from tests.contracts.test_api_support import Client, Scripted, raw, served

MESSAGES = "/api/v1/messages"
MESSAGE = {"channel": "webhook", "to": "x"}
SMALL = 8192


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
async def call(script: Scripted) -> AsyncIterator[Client]:
    async with served(script, Settings(max_body=SMALL)) as (client, _):
        yield client


# -- taking a message in


async def test_a_message_is_answered_with_its_receipt(call: Client, script: Scripted) -> None:
    answer = await call("POST", MESSAGES, MESSAGE)
    assert answer.status == 202
    assert answer.json == {"id": "m1", "state": "pending", "eta": None, "why": [], "duplicate": False}
    assert answer.headers["content-type"] == "application/json"
    assert script.calls == [MESSAGE]


async def test_waiting_answers_the_whole_message_once_it_ended(call: Client, script: Scripted) -> None:
    script.ended = {"id": "m1", "state": "completed"}
    answer = await call("POST", MESSAGES + "?wait=5", MESSAGE)
    assert (answer.status, answer.json) == (200, script.ended)


async def test_a_wait_ends_when_the_server_stops(script: Scripted) -> None:
    async with served(script, Settings()) as (call, app):
        waiting = asyncio.ensure_future(call("POST", MESSAGES + "?wait=60", MESSAGE))
        while not script.calls:
            await asyncio.sleep(0)
        app.stop()
        assert (await waiting).status == 202


@pytest.mark.parametrize("wait", ["61", "-1", "x", "nan", "inf", "", "1e9", "5&wait=6", "٣"])
async def test_a_wait_out_of_bounds_is_refused(call: Client, script: Scripted, wait: str) -> None:
    assert (await call("POST", f"{MESSAGES}?wait={wait}", MESSAGE)).fields() == ["/wait"]
    assert script.calls == []


async def test_an_unknown_parameter_of_the_hot_path_is_refused(call: Client) -> None:
    problem = (await call("POST", MESSAGES + "?wiat=1", MESSAGE)).is_problem(422)
    assert "did you mean 'wait'" in problem["errors"][0]["problem"]


# -- what is not JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"{'a':1}",
        b'{"a":1} x',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"\\ud800":1}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\x00"}',
        b"[" * 4000,
        b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
        b'{"a":' * 300 + b"1" + b"}" * 300,
        json.dumps(MESSAGE).encode("utf-16"),
    ],
)
async def test_what_is_not_json_is_a_400(call: Client, script: Scripted, body: bytes) -> None:
    (await call("POST", MESSAGES, data=body)).is_problem(400)
    (await call("POST", MESSAGES + "/actions", data=body)).is_problem(400)
    in_batch = await call("POST", MESSAGES + "/batch", data=body)
    in_batch.is_problem(in_batch.status)
    defaults = await call("POST", MESSAGES + "/batch", data=b'{"messages":[{}],"defaults":' + body + b"}")
    defaults.is_problem(400)
    assert script.calls == []


async def test_a_hundred_levels_are_taken(call: Client, script: Scripted) -> None:
    assert (await call("POST", MESSAGES, data=b'{"a":' + b"[" * 98 + b"]" * 98 + b"}")).status == 202


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true"])
@pytest.mark.parametrize("path", ["/messages", "/messages/batch", "/messages/actions"])
async def test_json_that_is_no_object_is_a_422(call: Client, path: str, body: bytes) -> None:
    (await call("POST", "/api/v1" + path, data=body)).is_problem(422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"to":"a","to":"b"}', "/to"),
        (b'{"to":"a","to" :"a"}', "/to"),
        (b'{"to" : 1, "text":"note :) \\": x", "to"\n:2}', "/to"),
        (b'{"to":"a","t\\u006f":"b"}', "/to"),
        (b'{"payload":{"a":[{"b":1},{"x/y":{},"x\\/y":{}}]}}', "/payload/a/1/x~1y"),
    ],
)
async def test_a_member_that_stands_twice_is_refused(
    call: Client, script: Scripted, body: bytes, field: str
) -> None:
    twice = {"field": field, "problem": "stands twice in its object; give it once"}
    for path in (MESSAGES, MESSAGES + "/actions"):
        problem = (await call("POST", path, data=body)).is_problem(422)
        assert (problem["errors"], problem["detail"]) == ([twice], f"{field}: {twice['problem']}")
    assert script.calls == []
    for kind, whole in (
        ("json", b'{"messages":[{},%b,{}]}' % body),
        ("x-ndjson", b"{}\n%b\n{}" % body.replace(b"\n", b" ")),
    ):
        sent = {"Content-Type": f"application/{kind}"}
        assert (await call("POST", MESSAGES + "/batch", data=whole, headers=sent)).status == 202
        good, bad, too = script.calls.pop()[0]
        assert (good, [msgspec.to_builtins(one) for one in bad], too) == ({}, [twice], {})
    assert (
        await call("POST", MESSAGES + "/batch", data=b'{"messages":[{}],"defaults":%b}' % body)
    ).fields() == [field]


@pytest.mark.parametrize("space", [b"", b" ", b"\n" * 3000])
@pytest.mark.parametrize("value", [b"[{}]", b"[" + b"{}," * 1000 + b"{}]"])
async def test_a_part_of_a_batch_that_stands_twice_is_refused(
    call: Client, script: Scripted, value: bytes, space: bytes
) -> None:
    for first, name in (
        (b'"messages"', "/messages"),
        (b'"m\\u0065ssages"', "/messages"),
        (b'"defaults":{},"defaults"', "/defaults"),
    ):
        body = b'{%b:%b%b,%b"messages":%b}' % (
            first,
            space,
            b"{}" if name == "/defaults" else b"[]",
            space,
            value,
        )
        assert (await call("POST", MESSAGES + "/batch", data=body)).fields() == [name]
    assert script.calls == []
    once = b'{%b"defaults":{"a":1}%b,"messages":%b%b}' % (space, space, space, value)
    assert (await call("POST", MESSAGES + "/batch", data=once)).status == 202


@given(st.recursive(st.integers() | st.text('":,{\\ a'), lambda inner: st.lists(inner) | st.dictionaries(st.text('":\\ a'), inner)), st.booleans())  # fmt: skip
def test_no_body_without_repeats_is_refused(value: Any, spaced: bool) -> None:
    text = json.dumps(value, separators=(" , ", " : ") if spaced else None).encode()
    assert parse(text) == value


# -- size and type


@pytest.mark.parametrize("path", ["/messages", "/messages/actions"])
async def test_a_body_that_says_it_is_too_large_is_refused(call: Client, path: str) -> None:
    answer = await call("POST", "/api/v1" + path, data=b" " * (SMALL + 1))
    answer.is_problem(413)


async def test_a_body_at_the_bound_is_taken(call: Client) -> None:
    body = json.dumps(MESSAGE).encode()
    assert (await call("POST", MESSAGES, data=body + b" " * (SMALL - len(body)))).status == 202


async def test_a_large_body_that_hides_its_length_is_cut_at_the_bound(call: Client, script: Scripted) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    (await call("POST", MESSAGES, data=chunks())).is_problem(413)
    assert script.calls == []


async def test_a_client_that_never_stops_sending_is_cut_off(call: Client) -> None:
    head = b"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n"
    endless = [b"2000\r\n" + b" " * 0x2000 + b"\r\n"] * 9000
    answer = await raw(call.port, head + b"Transfer-Encoding: chunked\r\n\r\n", *endless)
    assert answer.startswith(b"HTTP/1.1 413") or answer == b""


@pytest.mark.parametrize("length", [b"99999999999999999999999", b"0009000"])
async def test_a_length_beyond_the_bound_is_refused_before_reading(call: Client, length: bytes) -> None:
    head = b"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\nContent-Length: "
    answer = await raw(call.port, head + length + b"\r\nConnection: close\r\n\r\n", b"")
    assert answer.split()[1] in {b"400", b"413"}


async def test_a_client_that_leaves_in_the_middle_changes_nothing(call: Client, script: Scripted) -> None:
    head = b"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", call.port)
    writer.write(head + b'Content-Length: 100\r\n\r\n{"channel":')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await call("GET", "/health/live")).status == 200
    assert script.calls == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
@pytest.mark.parametrize("path", ["/messages", "/messages/batch", "/messages/actions"])
async def test_another_type_of_content_is_a_415(call: Client, path: str, kind: str) -> None:
    answer = await call("POST", "/api/v1" + path, data=b"{}", headers={"Content-Type": kind})
    assert "application/json" in answer.is_problem(415)["detail"]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
async def test_json_by_other_names_is_taken(call: Client, kind: str) -> None:
    answer = await call("POST", MESSAGES, data=json.dumps(MESSAGE), headers={"Content-Type": kind})
    assert answer.status == 202


async def test_a_body_without_a_type_is_taken_for_json(call: Client) -> None:
    head = b"POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\nConnection: close\r\n"
    assert (await raw(call.port, head + b"Content-Length: 2\r\n\r\n{}")).startswith(b"HTTP/1.1 202")


# -- batches


async def test_a_batch_passes_bodies_and_defaults_on(call: Client, script: Scripted) -> None:
    batch = {"messages": [MESSAGE, 7, None], "defaults": {"queue": "q"}}
    assert (await call("POST", MESSAGES + "/batch", batch)).status == 202
    bodies, defaults = script.calls[0]
    assert bodies[0] == MESSAGE
    assert [each[0].problem for each in bodies[1:]] == ["the body must be a JSON object"] * 2
    assert defaults == {"queue": "q"}


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ({}, "/messages"),
        ({"messages": {}}, "/messages"),
        ({"messages": None}, "/messages"),
        ({"messages": [], "defaults": []}, "/defaults"),
        ({"messages": [], "default": {}}, "/default"),
        ({"messages": [], "a/b~c": 1}, "/a~1b~0c"),
    ],
)
async def test_a_batch_of_another_shape_is_refused(call: Client, batch: Any, field: str) -> None:
    assert (await call("POST", MESSAGES + "/batch", batch)).fields() == [field]


@pytest.mark.parametrize("count", [10_000, 10_001, 30_000])
@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_ten_thousand_is_the_most(script: Scripted, kind: str, count: int) -> None:
    lines = kind == "application/x-ndjson"
    body = b"{}\n" * count if lines else b'{"messages":[' + b",".join([b"{}"] * count) + b"]}"
    async with served(script, Settings()) as (call, _):
        answer = await call("POST", MESSAGES + "/batch", data=body, headers={"Content-Type": kind})
    if count > 10_000:
        assert answer.fields() == ["/messages"]
        assert script.calls == []
    else:
        assert answer.status == 202
        assert len(script.calls[0][0]) == count


async def test_lines_are_taken_one_by_one(call: Client, script: Scripted) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'\n{"to":"a"}\r\n\n{"to":'
        yield b'"b"}\n{"to":"\xff"}\nnonsense\n[1]\n' + b'{"to":"' + b"x" * 5000
        yield b"x" * 5000 + b'"}\n{"to":"c"}'

    headers = {"Content-Type": "application/x-ndjson"}
    assert (await call("POST", MESSAGES + "/batch", data=pieces(), headers=headers)).status == 202
    bodies, defaults = script.calls[0]
    assert [body if isinstance(body, dict) else body[0].problem for body in bodies] == [
        {"to": "a"},
        {"to": "b"},
        "not UTF-8",
        "JSON is malformed: invalid character (byte 4)",
        "the body must be a JSON object",
        "the line is too long",
        {"to": "c"},
    ]
    assert defaults == {}


async def test_lines_without_end_are_cut_at_the_bound_of_a_batch(call: Client, script: Scripted) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"{}\n" + b" " * 1000 + b"\n"

    headers = {"Content-Type": "application/x-ndjson"}
    (await call("POST", MESSAGES + "/batch", data=pieces(), headers=headers)).is_problem(413)
    assert script.calls == []


async def test_a_broken_item_does_not_touch_the_others(call: Client, script: Scripted) -> None:
    body = b'{"messages":[{"to":"a"},{"to":"\xff"},{"to":"c"}]}'
    assert (await call("POST", MESSAGES + "/batch", data=body)).status == 202
    assert [isinstance(each, dict) for each in script.calls[0][0]] == [True, False, True]


# -- errors of the engine


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidError([Problem("/to", "is missing")]), 422),
        (ConflictError("used before"), 409),
        (NotFoundError("there is no such thing"), 404),
        (DeniedError("no"), 403),
        (UnavailableError("the disk is full"), 503),
    ],
)
@pytest.mark.parametrize("hot", [True, False])
async def test_errors_become_problems(
    call: Client, script: Scripted, error: Exception, status: int, hot: bool
) -> None:
    script.error = error
    answer = await (call("POST", MESSAGES, MESSAGE) if hot else call("GET", MESSAGES))
    problem = answer.is_problem(status)
    if status == 422:
        assert problem["errors"] == [{"field": "/to", "problem": "is missing"}]
    assert (answer.headers.get("retry-after") is not None) == (status == 503)


@pytest.mark.parametrize("hot", [True, False])
async def test_the_unforeseen_is_a_500_whose_incident_is_in_the_log(
    call: Client, script: Scripted, hot: bool
) -> None:
    script.error = ZeroDivisionError("secret detail")
    with structlog.testing.capture_logs() as logs:
        answer = await (call("POST", MESSAGES, MESSAGE) if hot else call("GET", MESSAGES))
    problem = answer.is_problem(500)
    assert b"secret detail" not in answer.body
    assert [each["incident"] for each in logs] == [problem["incident"]]
    assert logs[0]["exc_info"] is script.error


# -- addresses and methods


@pytest.mark.parametrize(
    "path", ["/nope", "/api/v1", "/api/v1/", "/api/v1/nope", "/api/v2/messages", "/api/v1/messages/", "/docs/", "//",
             "/api/v1/messages/a/b/c", "/api/v1/accounts/a%2Fb", "/%00", "/api/v1/messages/%ff/nope"],
)  # fmt: skip
async def test_an_unknown_address_is_a_404(call: Client, path: str) -> None:
    (await call("GET", path)).is_problem(404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/messages", "GET, POST"),
        ("GET", "/messages/batch", "POST"),
        ("POST", "/messages/m1", "DELETE, GET, PATCH"),
        ("GET", "/messages/actions", "POST"),
        ("PUT", "/queues/status", "GET"),
        ("OPTIONS", "/messages", "GET, POST"),
        ("TRACE", "/accounts/a", "DELETE, GET, PUT"),
    ],
)
async def test_another_method_is_a_405_that_names_the_right_ones(
    call: Client, method: str, path: str, allow: str
) -> None:
    answer = await call(method, "/api/v1" + path)
    answer.is_problem(405)
    assert answer.headers["allow"] == allow


async def test_head_is_get_without_the_body(call: Client) -> None:
    for path in (MESSAGES, "/docs", "/health/ready", "/api/v1/events"):
        answer = await call("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


# -- parameters


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stat=failed", "/stat"),
        ("order_by=id", "/order_by"),
        ("limit=0", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=1000000000", "/limit"),
        ("limit=1001", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=%D9%A3", "/limit"),
        ("limit=1&limit=2", "/limit"),
        ("cursor=a&cursor=b", "/cursor"),
        ("q=%ff", ""),
        ("&".join(["state=failed"] * 2001), ""),
        ("key=abc", "/key"),
        ("a%2Fb=1", "/a~1b"),
    ],
)
async def test_a_wrong_parameter_is_named(call: Client, query: str, field: str) -> None:
    assert (await call("GET", f"{MESSAGES}?{query}")).fields() == [field]


async def test_a_misspelt_parameter_gets_a_hint(call: Client) -> None:
    problem = (await call("GET", MESSAGES + "?chanel=x")).is_problem(422)
    assert "did you mean 'channel'?" in problem["errors"][0]["problem"]


async def test_a_key_in_an_address_is_refused_and_not_repeated(call: Client) -> None:
    answer = await call.as_(None)("GET", MESSAGES + "?token=pk_secret")
    answer.is_problem(401)
    answer = await call("GET", MESSAGES + "?token=pk_secret")
    assert "Authorization: Bearer" in answer.is_problem(422)["detail"]
    assert b"pk_secret" not in answer.body


async def test_repeated_parameters_reach_the_engine_as_alternatives(call: Client, script: Scripted) -> None:
    query = "state=failed&state=expired&to=%2B49&q=50%25_&limit=7&cursor=c"
    assert (await call("GET", f"{MESSAGES}?{query}")).status == 200
    caller, wanted, cursor, limit = script.calls[0]
    assert wanted == {"state": ["failed", "expired"], "to": ["+49"], "q": ["50%_"]}
    assert (caller.name, cursor, limit) == ("admin", "c", 7)


async def test_calls_without_parameters_refuse_them(call: Client, script: Scripted) -> None:
    assert (await call("POST", MESSAGES + "/actions?dryrun=true", {})).fields() == ["/dryrun"]
    assert (await call("GET", MESSAGES + "/m1?full=1")).fields() == ["/full"]
    assert (await call("POST", MESSAGES + "/actions?dry_run=perhaps", {})).fields() == ["/dry_run"]
    assert script.calls == []


# -- keys, roles, tenants


@pytest.mark.parametrize(
    "sent",
    [
        None, "", "Bearer", "Bearer ", "Bearer nobody", "Basic YWRtaW46", "admin", "Bearer  admin", "Bearer admin x",
        "Bearer " + "x" * 100_000,
    ],
)  # fmt: skip
async def test_without_a_good_key_nothing_is_told(call: Client, script: Scripted, sent: str | None) -> None:
    headers = {} if sent is None else {"Authorization": sent}
    for method, path in (("POST", MESSAGES), ("GET", MESSAGES), ("GET", "/api/v1/events")):
        answer = await call.as_(None)(method, path, headers=headers)
        answer.is_problem(401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert script.calls == []


async def test_the_scheme_may_be_written_in_any_case(call: Client) -> None:
    assert (await call.as_(None)("GET", MESSAGES, headers={"Authorization": "bEARER admin"})).status == 200


def every_call() -> list[tuple[str, str, str]]:
    routed = [(endpoint.method, endpoint.path, endpoint.role) for endpoint in ENDPOINTS]
    return routed + [(method, path, "sender") for path, methods in INGEST.items() for method in methods]


@pytest.mark.parametrize(("method", "path", "role"), every_call())
async def test_every_call_refuses_the_roles_below_its_own(
    call: Client, script: Scripted, method: str, path: str, role: str
) -> None:
    address = PREFIX + path.replace("{id}", "m1").replace("{name}", "x")
    (await call.as_(None)(method, address)).is_problem(401)
    for lower in ROLES[: ROLES.index(role)]:
        problem = (await call.as_(lower)(method, address, {} if method != "GET" else None)).is_problem(403)
        assert role in problem["detail"]
    assert script.calls == []


async def test_an_installation_key_acts_for_the_tenant_it_names(call: Client, script: Scripted) -> None:
    assert (await call("GET", "/api/v1/accounts?tenant=shop")).status == 200
    assert script.calls[0][0].tenant == "shop"


async def test_a_tenants_key_may_name_no_other(call: Client, script: Scripted) -> None:
    shop = call.as_("shop")
    (await shop("GET", "/api/v1/accounts?tenant=other")).is_problem(403)
    (await shop("GET", MESSAGES + "?tenant=shop&tenant=other")).is_problem(403)
    assert script.calls == []
    assert (await shop("GET", MESSAGES + "?tenant=shop")).status == 200
    assert (await call("GET", MESSAGES + "?tenant=a&tenant=b")).status == 200
    assert (await call("GET", "/api/v1/accounts?tenant=a&tenant=b")).fields() == ["/tenant"]
    assert (await call("GET", "/api/v1/accounts?tenant=%0A")).fields() == ["/tenant"]


async def test_what_is_about_everybody_takes_an_installation_key(call: Client) -> None:
    for method, path in (("POST", "/scheduler/stop"), ("POST", "/scheduler/start"), ("GET", "/doctor")):
        (await call.as_("shop")(method, "/api/v1" + path)).is_problem(403)


# -- other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_a_page_of_another_site_may_change_nothing(
    call: Client, script: Scripted, headers: dict[str, str]
) -> None:
    for method, path in (("POST", MESSAGES), ("POST", MESSAGES + "/batch"), ("POST", MESSAGES + "/actions")):
        (await call(method, path, {}, headers=headers)).is_problem(403)
    (await call("GET", "/api/v1/events", headers=headers)).is_problem(403)
    assert script.calls == []


async def test_our_own_pages_may(call: Client) -> None:
    own = {"Origin": f"http://127.0.0.1:{call.port}", "Sec-Fetch-Site": "same-origin"}
    assert (await call("POST", MESSAGES, MESSAGE, headers=own)).status == 202


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "@", "local"]
)
async def test_a_name_that_was_made_to_point_here_is_refused(
    call: Client, script: Scripted, host: str
) -> None:
    for method, path in (("POST", MESSAGES), ("GET", MESSAGES), ("GET", "/docs"), ("GET", "/health/ready")):
        (await call(method, path, headers={"Host": host})).is_problem(403)
    assert script.calls == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8080", "localhost."])
async def test_this_machines_names_are_taken(call: Client, host: str) -> None:
    assert (await call("GET", MESSAGES, headers={"Host": host})).status == 200


async def test_a_server_on_the_network_takes_any_name(script: Scripted) -> None:
    async with served(script, Settings(host="0.0.0.0")) as (call, _):
        assert (await call("GET", MESSAGES, headers={"Host": "queue.example"})).status == 200


async def test_no_answer_opens_a_door_to_other_sites(call: Client) -> None:
    origin = {"Origin": "https://evil.example"}
    for method, path in (
        ("GET", MESSAGES),
        ("OPTIONS", MESSAGES),
        ("POST", MESSAGES),
        ("GET", "/docs"),
        ("GET", "/x"),
    ):
        answer = await call(method, path, headers=origin)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_everything_has_the_security_headers(call: Client, script: Scripted) -> None:
    script.pages = [[{"id": "1"}]]
    paths = ["/", "/docs", "/openapi.json", "/health/live", "/health/ready", "/metrics", "/nope", MESSAGES,
             MESSAGES + "/export?format=csv", MESSAGES + "/m1", MESSAGES + "?x=1"]  # fmt: skip
    for path in paths:
        answer = await call("GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["referrer-policy"] == "no-referrer", path
        assert answer.headers["x-frame-options"] == "DENY", path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy, path
        assert "unsafe" not in policy
        assert "server" not in answer.headers
    assert (await call("POST", MESSAGES, MESSAGE)).headers["x-content-type-options"] == "nosniff"


# -- outside the prefix


async def test_ready_says_why_it_is_not(call: Client, script: Scripted) -> None:
    assert (await call.as_(None)("GET", "/health/ready")).json == {"status": "ready"}
    script.ready = False
    answer = await call.as_(None)("GET", "/health/ready")
    assert answer.status == 503
    assert answer.json["reasons"] == ["the store cannot write"]
    assert (await call.as_(None)("GET", "/health/live")).status == 200


async def test_metrics_are_open_on_loopback_and_take_a_key_elsewhere(script: Scripted) -> None:
    async with served(script, Settings()) as (call, _):
        answer = await call.as_(None)("GET", "/metrics")
        assert answer.status == 200
        assert b"paceline_up 1.0" in answer.body
    async with served(script, Settings(host="0.0.0.0")) as (call, _):
        (await call.as_(None)("GET", "/metrics")).is_problem(401)
        (await call.as_("shop")("GET", "/metrics")).is_problem(403)
        assert (await call.as_("viewer")("GET", "/metrics")).status == 200


async def test_the_reference_is_one_page_that_asks_nobody(call: Client) -> None:
    pages = {}
    for path in ("/", "/docs"):
        answer = await call.as_(None)("GET", path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        pages[path] = answer.body.decode()
        for outside in ("src=", "@import", "url(", "<link", "//cdn"):
            assert outside not in pages[path]
    written = document()
    calls = sum(len(methods) for methods in written["paths"].values())
    assert pages["/docs"].count("<details id=") == calls + len(written["components"]["schemas"])


async def test_the_policy_lets_our_own_style_and_script_through(call: Client) -> None:
    answer = await call.as_(None)("GET", "/docs")
    for tag in ("style", "script"):
        inline = answer.body.decode().split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in answer.headers["content-security-policy"]


async def test_the_document_is_served_as_it_is(call: Client) -> None:
    answer = await call.as_(None)("GET", "/openapi.json")
    assert answer.json == json.loads(json.dumps(document(), default=str))
