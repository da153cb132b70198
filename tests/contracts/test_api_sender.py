"""A node that only sends: it can be watched, and everything else is answered with who takes messages."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from paceline import wiring
from paceline.api.openapi import document
from paceline.config import Settings
from paceline.model.errors import InvalidError
from tests.contracts.stores.engine_group import accounts, group, until
from tests.contracts.test_api_support import Scripted, served

WATCHED = {"/health/live", "/health/ready", "/metrics"}
OPEN = Settings(role="sender", host="0.0.0.0")


class Known(Scripted):
    """One that knows of these nodes."""

    def __init__(self, *nodes: tuple[str, str, str]) -> None:
        super().__init__()
        self._nodes = nodes

    def list_nodes(self) -> dict[str, Any]:
        rows = enumerate(self._nodes, 100)
        return {
            "items": [{"name": n, "role": r, "state": s, "process": pid} for pid, (n, r, s) in rows],
            "next": None,
        }


async def test_it_answers_health_and_metrics_and_nothing_else_of_the_interface() -> None:
    calls = [(method.upper(), path) for path, methods in document()["paths"].items() for method in methods]
    assert len(calls) > 50
    async with served(Known(("there", "all", "alive")), Settings(role="sender")) as (client, _):
        for method, path in calls:
            reply = await client(method, path, {} if method in {"POST", "PUT", "PATCH"} else None)
            if path in WATCHED:
                assert reply.status == 200, path
            else:
                detail = reply.is_problem(421)["detail"]
                assert "takes no messages" in detail and "there (role all, process 100)" in detail, path
        assert b"paceline_up 1" in (await client("GET", "/metrics")).body


async def test_it_names_those_alone_that_live_and_take_messages() -> None:
    service = Known(
        ("one", "all", "alive"),
        ("two", "sender", "alive"),
        ("three", "api", "alive"),
        ("four", "all", "silent"),
    )
    async with served(service, Settings(role="sender")) as (client, _):
        detail = (await client("POST", "/api/v1/messages", {})).is_problem(421)["detail"]
        assert "one (role all, process 100) or three (role api, process 102)" in detail
        assert "two" not in detail and "four" not in detail
    async with served(Known(("two", "sender", "alive")), Settings(role="sender")) as (client, _):
        assert "none is running" in (await client("GET", "/docs")).is_problem(421)["detail"]


async def test_only_who_may_see_the_figures_hears_the_names_of_machines() -> None:
    async with served(Known(("there", "all", "alive")), OPEN) as (client, _):
        assert "there" in (await client("GET", "/api/v1/messages")).is_problem(421)["detail"]
        for key in (None, "wrong", "shop"):
            detail = (await client.as_(key)("GET", "/api/v1/messages")).is_problem(421)["detail"]
            assert "there" not in detail and "a node with the role all or api" in detail, key
            assert (await client.as_(key)("GET", "/metrics")).status in {401, 403}
            assert (await client.as_(key)("GET", "/health/ready")).status == 200


async def test_its_real_figures_are_those_of_its_own_share(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        taker, sender = await nodes.add("api"), await nodes.add("sender")
        (name,) = await accounts(taker, 1)
        await until(lambda: f"default/{name}" in sender.core.directory.accounts)
        ids = [await taker.send(account=name) for _ in range(3)]
        for id_ in ids:
            assert (await taker.ended(id_))["state"] == "completed"
        settings = Settings(role="sender", data=sender.folder)
        async with served(sender.service, settings, None) as (client, _):
            figures = (await client("GET", "/metrics")).body.decode()
            assert re.search(
                r'^paceline_messages_total\{queue="\w+",status="completed"\} 3\.0$', figures, re.MULTILINE
            )
            detail = (await client("POST", "/api/v1/messages", {})).is_problem(421)["detail"]
            assert f"{socket.gethostname()} (role api, process {os.getpid()})" in detail


@pytest.mark.parametrize("role", ["api", "sender"])
def test_there_is_no_such_node_without_others(tmp_path: Path, role: str) -> None:
    with pytest.raises(InvalidError, match=f"{role} is for a node beside others"):
        wiring.make_store(Settings(data=tmp_path, role=role))
