"""The Python client: one suite for an engine in this process and for a server over HTTP."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

import paceline
from paceline import Paceline
from paceline.client_types import RefusedError, UnreachableError
from paceline.model.errors import ConflictError, InvalidError, NotFoundError, PacelineError
from tests.contracts.test_cli_support import Running, receiver

JOB: dict[str, Any] = {"channel": "webhook", "account": "hooks"}


@pytest.fixture(scope="module")
def hook() -> Iterator[str]:
    with receiver() as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and key of a real server."""
    running = Running(tmp_path_factory.mktemp("client"), "")
    try:
        yield running.environment["PACELINE_SERVER"], (running.data / "admin.key").read_text().strip()
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What one test's engine logs to must not outlive it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(params=["embedded", "http"])
async def app(
    request: pytest.FixtureRequest, tmp_path: Path, hook: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Paceline]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACELINE_OUTGOING_ALLOW", "127.0.0.0/8")
    if request.param == "embedded":
        client = Paceline(data=tmp_path / "data", grace=1)
    else:
        address, key = request.getfixturevalue("server")
        client = Paceline(address, key=key)
    async with client:
        await client.accounts.set("hooks", "webhook", {"url": hook}, limits=["1000/s"])
        await client.accounts.set("slow", "webhook", {"url": hook}, limits=["1/h"])
        yield client


async def held(app: Paceline) -> str:
    """The id of a message that waits."""
    batch = (await app.send_many([{"payload": n} for n in range(2)], channel="webhook", account="slow"))[0]
    return batch.ids[1]


async def test_a_message_is_sent_and_its_end_awaited(app: Paceline) -> None:
    receipt = await app.send(**JOB, payload={"a": 1})
    assert receipt.state in {"pending", "processing", "completed"}
    message = await app.wait(receipt.id, 20)
    assert (message.state, message.ended, message.account) == ("completed", True, "hooks")
    assert message.raw["payload"] == {"a": 1}
    assert (await app.get(receipt.id)).id == receipt.id
    assert (await app.trace(receipt.id))["nodes"]


async def test_send_can_wait_by_itself(app: Paceline) -> None:
    receipt = await app.send(**JOB, payload={}, wait=20)
    assert receipt.state == "completed"
    assert receipt.message is not None
    refused = await app.send(**JOB, payload="refuse me", wait=20)
    assert refused.message is not None
    assert refused.message.error["class"] == "permanent"


async def test_what_waits_says_why_and_until_when(app: Paceline) -> None:
    id_ = await held(app)
    with pytest.raises(TimeoutError, match="has not ended within"):
        await app.wait(id_, 0.01)
    reasons = await app.why(id_)
    assert any("1/h" in reason.text for reason in reasons)
    assert any(reason.until for reason in reasons)


async def test_a_waiting_message_is_changed_cancelled_and_retried(app: Paceline) -> None:
    id_ = await held(app)
    later = datetime.now(UTC) + timedelta(hours=5)
    assert (await app.change(id_, scheduled_at=later, priority="high")).state == "scheduled"
    assert (await app.cancel(id_)).state == "cancelled"
    with pytest.raises(ConflictError):
        await app.cancel(id_)
    assert (await app.retry(id_)).state == "pending"
    await app.cancel(id_)
    await app.delete(id_)
    with pytest.raises(NotFoundError):
        await app.get(id_)


async def test_errors_are_those_of_the_model(app: Paceline) -> None:
    with pytest.raises(InvalidError) as caught:
        await app.send(channel="webhook", account="nobody", to="ftp://example.com/", payload={})
    assert "/to" in {problem.field for problem in caught.value.problems} | {"/account"}
    with pytest.raises(NotFoundError):
        await app.get("0000000000000")
    with pytest.raises(NotFoundError):
        await app.wait("0000000000000", 1)
    with pytest.raises(NotFoundError):
        await app.accounts.get("nobody")
    first = await app.send(**JOB, payload=1, idempotency_key=f"k{id(app)}")
    again = await app.send(**JOB, payload=1, idempotency_key=f"k{id(app)}")
    assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
    with pytest.raises(ConflictError):
        await app.send(**JOB, payload=2, idempotency_key=f"k{id(app)}")


async def test_many_are_taken_in_and_bad_ones_told_by_index(app: Paceline) -> None:
    bodies: list[dict[str, Any]] = [{"payload": 1}, {"payload": 2, "account": "nobody"}, {"payload": 3}]
    (batch,) = await app.send_many(bodies, **JOB, campaign=f"c{id(app)}")
    assert sorted(batch.ids) == [0, 2]
    assert [one.index for one in batch.rejected] == [1]
    assert batch.rejected[0].errors[0].field == "/account"
    for id_ in batch.ids.values():
        await app.wait(id_, 20)
    found = [one.id async for one in app.find(campaign=f"c{id(app)}", state=["completed"])]
    assert sorted(found) == sorted(batch.ids.values())
    assert [one.id async for one in app.find(campaign=f"c{id(app)}", limit=1)] == [max(batch.ids.values())]
    assert (await app.batch(batch.batch))["total"] == 2


async def test_a_batch_given_again_adds_nothing(app: Paceline) -> None:
    bodies = [{"payload": n, "idempotency_key": f"again{id(app)}-{n}"} for n in range(3)]
    (first,) = await app.send_many(bodies, **JOB, campaign=f"again{id(app)}")
    (again,) = await app.send_many(bodies, **JOB, campaign=f"again{id(app)}")
    assert again.ids == first.ids
    assert (set(first.duplicates), set(again.duplicates)) == (set(), {0, 1, 2})
    assert len([one async for one in app.find(campaign=f"again{id(app)}")]) == 3


async def test_an_action_on_many(app: Paceline) -> None:
    wanted = {"campaign": f"many{id(app)}"}
    await app.send_many([{"payload": n} for n in range(3)], **JOB, **wanted, delay="1h")
    trial = await app.act("cancel", filter=wanted, dry_run=True)
    assert trial["would_change"] == 3
    with pytest.raises(ConflictError):
        await app.act("cancel", filter=wanted, expect=2)
    assert (await app.act("cancel", filter=wanted, expect=3))["changed"] == 3


async def test_accounts_limits_queues_and_templates(app: Paceline) -> None:
    assert {"hooks", "slow"} <= {one["name"] for one in await app.accounts.list()}
    assert (await app.accounts.pause("hooks"))["state"] == "paused"
    assert (await app.accounts.resume("hooks"))["state"] == "ready"
    assert (await app.accounts.test("hooks", text="hello")).state == "completed"
    assert (await app.accounts.queue("hooks"))["stats"]["completed"] >= 1
    await app.limits.set("wide", "100/s", {"queue": "sms"})
    assert (await app.limits.get("wide"))["limit"] == "100/s"
    assert "wide" in {one["name"] for one in await app.limits.list()}
    await app.limits.delete("wide")
    await app.queues.set("own", max_attempts=5)
    await app.queues.pause("own")
    await app.queues.resume("own")
    assert "own" in {one["name"] for one in (await app.queues.status())["queues"]}
    assert await app.queues.empty("own") == 0
    assert await app.queues.clean("own", older_than=3600) == 0
    await app.templates.set("hello", text="Hello {{ name }}")
    assert (await app.templates.preview("hello", {"name": "Ada"}))["text"] == "Hello Ada"
    assert "hello" in {one["name"] for one in await app.templates.list()}
    assert (await app.templates.get("hello"))["text"] == "Hello {{ name }}"
    await app.templates.delete("hello")
    await app.accounts.set("gone", "webhook", {}, limits=["1/s"])
    await app.accounts.delete("gone")
    assert await app.overview()


async def test_events_are_told_as_they_happen(app: Paceline) -> None:
    heard: list[tuple[str, str]] = []
    wanted: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen() -> None:
        async with contextlib.aclosing(app.events("message-sent", account="hooks")) as events:
            async for event in events:
                heard.append((event.type, event.data["id"]))
                if wanted.done() and event.data["id"] == wanted.result():
                    return

    task = asyncio.create_task(listen())
    async with asyncio.timeout(20):
        while not task.done():  # an event is only heard by those who listen already
            receipt = await app.send(**JOB, payload={}, wait=5)
            if heard and not wanted.done():
                wanted.set_result((await app.send(**JOB, payload={})).id)
            await asyncio.sleep(0)
            assert receipt.state == "completed"
    await task
    assert {kind for kind, _ in heard} == {"message-sent"}


async def test_a_moment_needs_its_zone(app: Paceline) -> None:
    with pytest.raises(InvalidError, match="needs a time zone"):
        await app.send(**JOB, payload={}, scheduled_at=datetime(2030, 1, 1))


async def test_a_closed_client_opens_again(app: Paceline) -> None:
    await app.close()
    assert (await app.send(**JOB, payload={}, wait=20)).state == "completed"


def test_the_same_calls_without_an_event_loop(server: tuple[str, str], hook: str) -> None:
    address, key = server
    with Paceline(address, key=key).sync as app:
        app.accounts.set("hooks", "webhook", {"url": hook}, limits=["1000/s"])
        receipt = app.send(**JOB, payload={})
        assert app.wait(receipt.id, 20).state == "completed"
        assert receipt.id in [one.id for one in app.find(account="hooks")]
        with pytest.raises(NotFoundError):
            app.get("0000000000000")
        with pytest.raises(AttributeError):
            app.nonsense()
    assert not [thread for thread in threading.enumerate() if thread.name == "paceline-sync"]


def test_the_embedded_engine_without_an_event_loop(tmp_path: Path) -> None:
    app = Paceline(data=tmp_path / "data")

    @app.handler("double")
    def double(job: Any) -> int:
        job.progress(50, "half")
        return 2 * int(job.payload)

    with app.sync as sync:
        done = sync.send(channel="handler", kind="double", payload=21, wait=20)
        assert done.message.result["value"] == 42


def test_one_line_sends(server: tuple[str, str], monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    monkeypatch.setenv("PACELINE_SERVER", server[0])
    monkeypatch.setenv("PACELINE_KEY", server[1])
    assert paceline.send(channel="webhook", to=hook, text="hello").id


async def test_handlers_report_and_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = Paceline(data=tmp_path / "data")
    seen, go = asyncio.Event(), asyncio.Event()

    @app.handler("report")
    async def report(job: Any) -> dict[str, Any]:
        job.progress(40, "adding up")
        seen.set()
        await go.wait()
        return {"month": job.payload["month"]}

    async with app:
        receipt = await app.send(channel="handler", kind="report", payload={"month": "2030-01"})
        await asyncio.wait_for(seen.wait(), 20)
        assert (await app.get(receipt.id)).progress == {"percent": 40, "step": "adding up"}
        go.set()
        message = await app.wait(receipt.id, 20)
        assert message.result["value"] == {"month": "2030-01"}
        with pytest.raises(PacelineError, match="before the engine is opened"):
            app.handler("late")


async def test_what_is_wrong_with_a_client_is_told(server: tuple[str, str]) -> None:
    with pytest.raises(PacelineError, match="handlers run where the engine runs"):
        Paceline(server[0]).handler("x")
    with pytest.raises(PacelineError, match="only an engine in this process can run"):
        Paceline(server[0]).run()
    with pytest.raises(InvalidError, match="leave server and key out"):
        Paceline(server[0], data="x")
    with pytest.raises(InvalidError, match=r"did you mean .*in_flight"):
        Paceline(data="x", in_fligth=3)
    with pytest.raises(InvalidError, match="give data as well"):
        Paceline(in_flight=3)
    async with Paceline(server[0], key="pk_wrong") as app:
        with pytest.raises(RefusedError):
            await app.accounts.list()
        with pytest.raises(RefusedError):
            await anext(app.events())
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        async with Paceline(f"http://127.0.0.1:{trial.getsockname()[1]}") as app:
            with pytest.raises(UnreachableError, match="no answer from"):
                await app.get("0000000000000")
            with pytest.raises(UnreachableError):
                await anext(app.events())
