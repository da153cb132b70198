"""Every call of the OpenAPI document, by every role, with another tenant's things, and from another site's page."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.api.openapi import document
from paceline.api.routes import PREFIX
from paceline.engine.keys import ROLES
from tests.contracts.bad_place import BOT, LATER, Place, placed
from tests.contracts.test_api_support import Reply

Row = tuple[str, str, str, dict[str, Any]]
THEIRS = "zebra"
"""The other tenant: whatever is its own has this word in it."""
EVERYBODYS = {"/doctor", "/nodes", "/scheduler/start", "/scheduler/stop", "/queues/{name}", "/queues/{name}/pause",
              "/queues/{name}/resume", "/backups", "/hold/release"}  # fmt: skip
"""About the whole installation: a tenant's key may not, whatever its role."""
STREAM = "/events"
BODIES: dict[str, Any] = {
    "POST /messages": LATER,
    "POST /messages/batch": {"messages": [LATER]},
    "PUT /accounts/{name}": BOT,
    "POST /keys": {"name": "another", "role": "viewer"},
    "POST /templates/{name}/preview": {"variables": {}},
}


def rows() -> list[Row]:
    """Method, path, role and what the document says of it."""
    found = []
    for path, methods in document()["paths"].items():
        if not path.startswith(PREFIX):
            continue
        for method, call in methods.items():
            role = call["description"].rpartition("Role: ")[2].rstrip(".")
            assert role in ROLES, (path, role)
            found.append((method.upper(), path.removeprefix(PREFIX), role, call))
    return sorted(found, key=lambda row: row[0] == "PUT")  # what a PUT makes would be found afterwards


def body_of(row: Row) -> Any:
    method, path, _, call = row
    if method not in {"POST", "PUT", "PATCH"}:
        return None
    example = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example", {})
    return BODIES.get(f"{method} {path}", example)


class Other:
    """What the other tenant has, and how to ask for it."""

    def __init__(self, place: Place, id_: str, batch: str) -> None:
        self.place, self.id, self.batch = place, id_, batch

    def path(self, row: Row) -> str:
        path = row[1].replace("{id}", self.batch if row[1].startswith("/batches") else self.id)
        return path.replace("{name}", "email" if path.startswith("/queues") else f"{THEIRS}-thing")

    async def ask(self, row: Row, key: str, body: Any = None, query: str = "") -> Reply:
        sent = body_of(row) if body is None else body
        if row[1] == "/messages/actions":
            sent = {"action": "delete", "ids": [self.id]}
        if row[1] == "/messages/export" and "format" not in query:
            query += ("&" if query else "?") + "format=jsonl"
        return await self.place.api(row[0], self.path(row) + query, sent, key)

    async def stored(self) -> list[Any]:
        """All that is theirs, as the installation sees it."""
        parts = ("/messages", "/accounts", "/limits", "/templates", "/queues")
        found = [(await self.place.api("GET", f"{part}?tenant={THEIRS}")).json["items"] for part in parts]
        keys = (await self.place.api("GET", "/keys")).json["items"]
        return [*found, [key for key in keys if key["tenant"] == THEIRS]]


@pytest.fixture
async def other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Other]:
    async with placed(tmp_path, caplog) as place:
        key = await place.key("admin", THEIRS)
        marked = LATER | {"metadata": {"of": THEIRS}, "source": THEIRS, "queue": "email"}
        id_ = (await place.api("POST", "/messages", marked, key)).json["id"]
        batch = (await place.api("POST", "/messages/batch", {"messages": [marked]}, key)).json["batch"]
        name = f"{THEIRS}-thing"
        await place.api("PUT", f"/accounts/{name}", BOT, key)
        await place.api("PUT", f"/templates/{name}", {"text": THEIRS}, key)
        await place.api("PUT", f"/limits/{name}", {"scope": {"queue": "email"}, "limit": "1/s"}, key)
        await place.api("POST", "/keys", {"name": name, "role": "viewer", "tenant": THEIRS}, key)
        yield Other(place, id_, batch)


def wanted(row: Row, role: str) -> set[int]:
    """What a key of another tenant hears."""
    method, path, needed, _ = row
    if ROLES.index(role) < ROLES.index(needed):
        return {403}
    if path in EVERYBODYS or (method, path) == ("POST", "/hold"):
        return {403}
    if "{id}" in path or ("{name}" in path and not path.startswith("/queues") and method != "PUT"):
        return {404}
    return {200, 201, 202}


@pytest.mark.parametrize("role", ROLES)
async def test_another_tenants_things_do_not_exist_for_any_role(other: Other, role: str) -> None:
    key = await other.place.key(role, "ours")
    before = await other.stored()
    assert all(before)
    for row in rows():
        if row[1] == STREAM:
            continue
        answer = await other.ask(row, key)
        place = f"{role} {row[0]} {row[1]}: {answer.status} {answer.body[:200]!r}"
        assert answer.status in wanted(row, role), place
        if answer.status >= 400:
            answer.is_problem(answer.status)
        if answer.status < 400 and row[0] != "PUT":  # (a name that was asked for may be said again)
            assert THEIRS.encode() not in answer.body, place
    assert await other.stored() == before


@pytest.mark.parametrize("role", ROLES)
async def test_a_tenants_key_may_not_name_another_tenant(other: Other, role: str) -> None:
    key = await other.place.key(role, "ours")
    before = await other.stored()
    for row in rows():
        if {"$ref": "#/components/parameters/tenant"} in row[3].get("parameters", []) or {
            "$ref": "#/components/parameters/one-tenant"
        } in row[3].get("parameters", []):
            answer = await other.ask(row, key, query=f"?tenant={THEIRS}")
            answer.is_problem(403)
    for body in (LATER, {"messages": [LATER]}):
        path = "/messages/batch" if "messages" in body else "/messages"
        named = (
            {"messages": [LATER | {"tenant": THEIRS}]} if "messages" in body else LATER | {"tenant": THEIRS}
        )
        answer = await other.place.api("POST", path, named, key)
        if role == "viewer":
            answer.is_problem(403)
        elif "messages" in body:
            assert [e["field"] for e in answer.json["rejected"][0]["errors"]] == ["/tenant"]
        else:
            assert answer.fields() == ["/tenant"]
    answer = await other.place.api("POST", "/keys", {"name": "x", "role": "viewer", "tenant": THEIRS}, key)
    answer.is_problem(403)
    assert await other.stored() == before


@pytest.mark.parametrize("role", ROLES[:-1])
async def test_a_role_below_may_not_whatever_it_asks_for(other: Other, role: str) -> None:
    """A key of the whole installation sees everything and still does only what its role lets it."""
    key = await other.place.key(role)
    before = await other.stored()
    for row in rows():
        if ROLES.index(role) >= ROLES.index(row[2]):
            continue
        for body in (None, {"nonsense": 1}):
            problem = (await other.ask(row, key, body)).is_problem(403)
            assert problem["detail"] == f"this takes a key with the role '{row[2]}'; this one has '{role}'"
    assert await other.stored() == before


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Origin": "https://evil.example", "Content-Type": "text/plain"}],
    ids=["another site", "a sandboxed page", "told by the browser", "a form"],
)  # fmt: skip
async def test_a_page_of_another_site_changes_nothing_and_listens_to_nothing(
    other: Other, headers: dict[str, str]
) -> None:
    before, whole = await other.stored(), await other.place.stored()
    for row in rows():
        if row[0] != "GET" or row[1] == STREAM:
            answer = await other.place.call(row[0], PREFIX + other.path(row), body_of(row), headers=headers)
            problem = answer.is_problem(403)
            assert problem["detail"].startswith("a page of another site may not ask for this")
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert (await other.stored(), await other.place.stored()) == (before, whole)


def test_every_call_is_walked() -> None:
    assert len(rows()) >= 55
    assert {row[2] for row in rows()} == set(ROLES)
