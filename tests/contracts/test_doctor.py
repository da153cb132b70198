"""Each check of the doctor: it passes on a sound installation, and names the fault that was really made."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import threading
import zoneinfo
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import structlog

from paceline import Job, Paceline
from paceline.channels.base import Outgoing, SendingAccount
from paceline.client_types import Handlers
from paceline.clock import SystemClock
from paceline.config import load
from paceline.engine import doctor, doctor_folder, doctor_messages, doctor_sending, doctor_store, loop_watch
from paceline.engine.doctor import CHECKS
from paceline.engine.moves import Moves
from paceline.engine.service import Service
from paceline.model.errors import UnavailableError
from paceline.model.outcomes import AccountStopped, Outcome, Permanent, RateLimited, Unknown
from paceline.stores.base import Daily, Document
from paceline.wiring import look, open_service
from tests.contracts.test_engine_support import ADMIN, PATIENCE

HOUR = 3_600_000


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    opened = await started(tmp_path)
    yield opened
    await opened.close(1)


async def started(folder: Path, handlers: Handlers | None = None, **settings: Any) -> Service:
    given = {"data": folder / "data", "outgoing_allow": "127.0.0.0/8", "log_level": "error", **settings}
    return await open_service(load(given, {}), handlers)


async def said(service: Service, name: str, *, reach: bool = False) -> tuple[str, str]:
    """The status of one check, and all it says."""
    found = {each["name"]: each for each in await service.doctor(reach=reach)}
    one = found[name]
    assert bool(one["advice"]) == (one["status"] != "pass")
    assert one["ok"] == (one["status"] == "pass")
    return one["status"], f"{one['detail']} / {one['advice']}"


async def account(service: Service, name: str = "a", **more: Any) -> None:
    body = {"channel": "webhook", "settings": {"url": "http://127.0.0.1:9/x"}, **more}
    await service.accounts.put(ADMIN, name, body)


async def send(service: Service, **body: Any) -> str:
    return (await service.messages.submit(ADMIN, {"channel": "webhook", "payload": 1, **body})).id


async def answered(service: Service, outcome: Outcome, **body: Any) -> str:
    """Send a message to a channel that answers like this; its id, once the answer is on disk."""

    async def answer(_message: Outgoing, _account: SendingAccount, _deadline: float) -> Outcome:
        return outcome

    service.core.directory.channels["webhook"].send = answer  # type: ignore[method-assign, assignment]  # the provider's part
    happened = asyncio.Event()
    service.core.bus.tap(lambda event: happened.set() if event.type != "message-queued" else None)
    id_ = await send(service, **body)
    async with asyncio.timeout(PATIENCE):
        while (await service.messages.get(ADMIN, id_))["error"] is None:
            await happened.wait()
            happened.clear()
    return id_


async def test_a_sound_installation_passes_every_check(service: Service) -> None:
    await account(service, limits=["20/min", "200/h"])
    found = await service.doctor()
    here = [row.name for row in CHECKS if not row.asked and not row.shared]
    assert [each["name"] for each in found] == here
    wrong = {each["name"]: each["detail"] for each in found if each["status"] != "pass"}
    assert wrong.keys() <= {"free disk"}, wrong  # how much there is, is the machine's


async def test_a_check_that_cannot_look_says_so_and_the_others_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> list[Any]:
        raise UnavailableError("the disk is gone")

    monkeypatch.setattr(service.core.store, "tallies", broken)
    found = {each["name"]: each for each in await service.doctor()}
    assert found["uncertain messages"]["status"] == "fail"
    assert "the disk is gone" in found["uncertain messages"]["detail"]
    assert found["scheduler"]["status"] == "pass"


async def test_a_check_that_hangs_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs() -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(doctor, "PATIENCE_S", 0.05)
    monkeypatch.setattr(service.core.store, "tallies", hangs)
    status, text = await said(service, "uncertain messages")
    assert status == "warn" and "could not be checked within" in text


# -- the folder


async def test_permissions(service: Service, tmp_path: Path) -> None:
    for name in ("admin.key", "secret.key"):
        path = tmp_path / "data" / name
        path.chmod(0o644)
        assert await said(service, name) == (
            "fail",
            f"{path} can be read by others (mode 644) / Run: chmod 600 {path}",
        )
    (tmp_path / "data" / "secret.key").unlink()
    assert (await said(service, "secret.key"))[0] == "fail"
    (tmp_path / "data" / "admin.key").unlink()
    assert (await said(service, "admin.key"))[0] == "warn"
    (tmp_path / "data").chmod(0o755)
    status, text = await said(service, "data folder")
    assert status == "warn" and "chmod 700" in text


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert doctor_folder.folder(tmp_path / "file").status == "fail"


def test_a_folder_without_rights(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("NOT PROVEN HERE: root may write everywhere, so no folder is closed to it")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert doctor_folder.folder(tmp_path / "closed").status == "fail"


async def test_a_small_disk(service: Service, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(small)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("NOT PROVEN HERE: a full disk needs a small file system, and only root may mount one")
    try:
        service._facts["data"] = str(small)
        status, text = await said(service, "free disk")
        assert status == "fail" and "MiB free" in text
        assert await said(service, "file system") == ("pass", "tmpfs / ")
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


async def test_a_network_file_system(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"35 21 0:44 / {tmp_path} rw,relatime shared:9 - nfs4 files:/export rw\n"
        f"36 35 0:45 / {tmp_path}/local rw - xfs /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(doctor_folder, "MOUNTS", mounts)
    status, text = await said(service, "file system")
    assert status == "fail" and "nfs4" in text
    assert doctor_folder.file_system(tmp_path / "local" / "x").detail == "xfs"
    monkeypatch.setattr(doctor_folder, "MOUNTS", tmp_path / "none")
    assert doctor_folder.file_system(tmp_path).status == "pass"


async def test_too_few_open_files(service: Service) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await account(service, concurrency=900)
    resource.setrlimit(resource.RLIMIT_NOFILE, (900, hard))
    try:
        status, text = await said(service, "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert status == "warn" and "may open 900 files" in text and "ulimit -n" in text


async def test_no_time_zone_data(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await account(service, quota={"day": 10, "zone": "Asia/Shanghai"})
    assert (await said(service, "time zones"))[0] == "pass"

    def none(zone: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(zone)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", none)
    status, text = await said(service, "time zones")
    assert status == "fail" and "Asia/Shanghai" in text


# -- the store


async def test_a_log_that_grows(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_store, "MOST_WAL", 0)
    await account(service)
    assert (await said(service, "write-ahead log"))[0] == "warn"


@pytest.mark.parametrize(
    ("name", "facts", "status"),
    [("SQLite", {"version": "3.40.1"}, "fail"), ("durability", {"durability": "fast"}, "warn")],
)
async def test_an_old_library_and_a_weaker_mode(
    service: Service, monkeypatch: pytest.MonkeyPatch, name: str, facts: dict[str, str], status: str
) -> None:
    health = await service.core.store.health()

    async def other() -> dict[str, Any]:
        return health | facts

    monkeypatch.setattr(service.core.store, "health", other)
    assert (await said(service, name))[0] == status


async def test_a_store_that_cannot_write(service: Service) -> None:
    service.core.dispatcher.away = True
    assert (await said(service, "store"))[0] == "fail"
    service.core.dispatcher.away = False


async def test_a_clock_that_was_moved(service: Service) -> None:
    clock = service.core.clock
    assert isinstance(clock, SystemClock)
    service.core.gates.moves = Moves(latest=-5000)
    status, text = await said(service, "clock")
    assert status == "warn" and "-5.0 s before the last start" in text
    clock._anchor -= 90 * 10**9  # as if the wall clock had gone 90 s ahead
    status, text = await said(service, "clock")
    assert status == "warn" and "+90." in text and "since the start" in text


async def test_old_keys_and_none(service: Service) -> None:
    store = service.core.store
    (key,) = await store.documents("key")
    await store.put([Document("key", key.tenant, key.name, key.body, key.updated_at - 400 * 24 * HOUR)])
    status, text = await said(service, "keys")
    assert status == "warn" and key.name in text
    await store.remove("key", key.tenant, key.name)
    assert "nobody can sign in" in (await said(service, "keys"))[1]


async def test_credentials_that_cannot_be_decrypted(tmp_path: Path) -> None:
    first = await started(tmp_path)
    await account(first, "hook", settings={"url": "http://127.0.0.1:9/x", "secret": "s3cret-canary"})
    await account(first, "other")
    await first.accounts.pause(ADMIN, "hook")
    id_ = await send(first, account="hook")
    await first.close(1)
    (tmp_path / "data" / "secret.key").unlink()
    second = await started(tmp_path)  # makes another key; the other accounts go on
    try:
        status, text = await said(second, "credentials")
        assert status == "fail" and "default/hook" in text
        assert "default/other" in second.core.directory.accounts
        assert (await second.messages.get(ADMIN, id_))["state"] == "pending"
        assert "canary" not in str(await second.doctor())
        await account(second, "hook", settings={"url": "http://127.0.0.1:9/x", "secret": "new"})
        assert (await said(second, "credentials"))[0] == "pass"
    finally:
        await second.close(1)


# -- sending


async def test_what_a_person_stopped(service: Service) -> None:
    await account(service)
    await service.watch.stop(ADMIN)
    assert (await said(service, "scheduler"))[0] == "fail"
    await service.queues.pause(ADMIN, "sms")
    await service.accounts.pause(ADMIN, "a")
    status, text = await said(service, "paused")
    assert status == "warn" and "queue sms" in text and "account a" in text


async def test_what_a_provider_said(service: Service) -> None:
    await account(service)
    await answered(service, RateLimited(HOUR), account="a")
    assert (await said(service, "flood waits"))[0] == "warn"
    await account(service, "b")
    await answered(service, AccountStopped("401", "bad token"), account="b")
    status, text = await said(service, "refused accounts")
    assert status == "fail" and "default/b (401: bad token)" in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"limits": ["20/min", "5/h"]}, "20/min is never reached beside 5/h"),
        ({"limits": ["1/s", "100/min"]}, "100/min is never reached beside 1/s"),
        ({"limits": ["60/min"], "interval": "2s"}, "60/min is never reached with one message each 2 s"),
        ({"limits": ["5/h"], "quota": {"day": 1000}}, "5/h never lets the 1,000 of a day through"),
        ({"limits": ["20/min", "200/h"]}, ""),
        ({"limits": ["20/min", "200/h"], "interval": "1s", "quota": {"day": 1000}}, ""),
    ],
)
async def test_limits_that_contradict_each_other(service: Service, more: dict[str, Any], words: str) -> None:
    await account(service, **more)
    status, text = await said(service, "limits")
    assert (status == "warn") == bool(words)
    assert words in text


async def test_too_low_a_concurrency(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_sending, "MEASURED_LEAST", 1)
    await account(service, limits=["100/s"], concurrency=1)
    await answered(service, Permanent("no", "no"), account="a")
    assert (await said(service, "concurrency"))[0] == "pass"

    async def slow(_days: Any) -> list[Daily]:
        return [Daily(0, "default", "q", "webhook", "default/a", 90, 10, 0, 5000)]

    monkeypatch.setattr(service.core.store, "daily", slow)
    status, text = await said(service, "concurrency")
    assert (
        status == "warn" and "default/a (a call takes 50 ms: its limits need 5.0 at once, it has 1)" in text
    )


async def test_providers_that_do_not_answer(service: Service) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    seen: list[bytes] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await account(service, "up", settings={"url": f"http://127.0.0.1:{port}/hook?token=s3cret"})
    assert (await said(service, "providers", reach=True))[0] == "pass"
    assert seen[0].startswith(b"HEAD / HTTP/1.1") and b"s3cret" not in seen[0]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        await account(service, "down", settings={"url": f"http://127.0.0.1:{closed.getsockname()[1]}/x"})
        mail = {
            "host": "127.0.0.1",
            "port": closed.getsockname()[1],
            "security": "none",
            "from": "a@example.com",
        }
        await account(service, "mail", channel="smtp", settings=mail)
        status, text = await said(service, "providers", reach=True)
    assert status == "fail" and "default/down" in text and "default/mail" in text and "default/up" not in text
    assert "providers" not in {each["name"] for each in await service.doctor()}
    server.close()


async def test_addresses_that_are_refused_are_not_reached(tmp_path: Path) -> None:
    service = await started(tmp_path)
    listener = await asyncio.start_server(lambda _r, _w: touched.set(), "127.0.0.1", 0)
    touched = asyncio.Event()
    await account(service, settings={"url": f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/x"})
    await service.close(1)
    strict = await started(tmp_path, outgoing_allow="")
    try:
        status, text = await said(strict, "providers", reach=True)
        assert status == "fail" and "PACELINE_OUTGOING_ALLOW" in text
        assert not touched.is_set()
    finally:
        await strict.close(1)
        listener.close()


async def test_a_hold(service: Service) -> None:
    assert (await said(service, "hold"))[0] == "pass"
    await service.holds.hold(ADMIN, {"reason": "moving house"})
    status, text = await said(service, "hold")
    assert status == "fail" and "moving house" in text and "paceline release" in text


async def test_a_function_that_blocks_the_loop_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_watch, "LOOK_S", 0.02)
    monkeypatch.setattr(loop_watch, "LATE_S", 0.05)
    looked = threading.Event()

    def named(frame: FrameType | None) -> tuple[str, str, str | None]:
        found = real(frame)
        looked.set()
        return found

    real = loop_watch._named
    monkeypatch.setattr(loop_watch, "_named", named)

    async def blocks(job: Job) -> str:
        looked.wait(PATIENCE)  # in the loop, where it must not
        return "done"

    service = await started(tmp_path, {"slow": blocks})
    try:
        id_ = await send(service, channel="handler", kind="slow")
        assert await service.messages.wait(id_, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while not service.core.loop_watch.blocked:
                await asyncio.sleep(0.01)
        status, text = await said(service, "event loop")
        assert status == "warn" and "channel handler kind slow" in text and "test_doctor.py" in text
    finally:
        await service.close(1)


# -- messages


async def test_quarantined_messages(service: Service) -> None:
    await account(service)
    await answered(service, Permanent("quarantined", "x"), kind="resize")
    status, text = await said(service, "quarantined messages")
    assert status == "warn" and "1 of webhook resize" in text


async def test_uncertain_messages(tmp_path: Path) -> None:
    async def cut(_job: Job) -> Outcome:
        return Unknown("cut")

    service = await started(tmp_path, {"cut": cut})
    try:
        await service.messages.wait(await send(service, channel="handler", kind="cut"), PATIENCE)
        status, text = await said(service, "uncertain messages")
        assert status == "warn" and "1 wait for a person" in text
    finally:
        await service.close(1)


async def test_messages_that_nobody_here_can_send(service: Service) -> None:
    await account(service)
    heard = asyncio.Event()
    service.core.bus.tap(lambda event: heard.set() if event.type == "message-retrying" else None)
    await send(service, channel="handler", kind="resize")
    await asyncio.wait_for(heard.wait(), PATIENCE)
    await service.accounts.pause(ADMIN, "a")
    await send(service, account="a")
    status, text = await said(service, "missing channels and functions")
    assert status == "warn" and "the function of kind 'resize' (1)" in text and "webhook" not in text
    del service.core.directory.channels["webhook"]
    assert "channel webhook (1)" in (await said(service, "missing channels and functions"))[1]
    await service.accounts.delete(ADMIN, "a")
    status, text = await said(service, "messages without an account")
    assert status == "warn" and "account default/a" in text


async def test_a_message_that_may_go_and_does_not(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await account(service)
    await service.accounts.pause(ADMIN, "a")
    id_ = await send(service, account="a")
    monkeypatch.setattr(doctor_messages, "LATE_MS", -1)
    assert (await said(service, "overdue messages"))[0] == "pass"  # the pause holds it back
    gate = service.core.gates.account("default/a")
    assert gate is not None
    gate.paused = False  # and nobody tells the dispatcher
    status, text = await said(service, "overdue messages")
    assert status == "fail" and id_ in text


async def test_a_call_past_its_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def hangs(_message: Outgoing, _account: SendingAccount, _deadline: float) -> Outcome:
        begun.set()
        await free.wait()
        return Permanent("x", "y")

    service.core.directory.channels["webhook"].send = hangs  # type: ignore[method-assign, assignment]  # the provider's part
    await account(service)
    id_ = await send(service, account="a")
    await asyncio.wait_for(begun.wait(), PATIENCE)
    assert (await said(service, "stuck calls"))[0] == "pass"
    monkeypatch.setattr(doctor_messages, "LATE_MS", -HOUR)
    status, text = await said(service, "stuck calls")
    free.set()
    assert status == "fail" and id_ in text and "(webhook)" in text


# -- from outside


async def test_a_folder_that_nobody_runs_is_looked_at_and_stays_as_it_is(tmp_path: Path) -> None:
    async with Paceline(data=tmp_path / "data") as app:
        await app.accounts.set("hook", "webhook", {"url": "https://example.com/x", "secret": "s3cret-canary"})
        await app.accounts.pause("hook")
        await app.send(channel="webhook", account="hook", payload=1)
    (tmp_path / "data" / "secret.key").chmod(0o644)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "data").iterdir()}
    found = {each["name"]: each for each in await look(load({"data": tmp_path / "data"}, {}))}
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "data").iterdir()} == before
    assert found["secret.key"]["status"] == "fail" and str(tmp_path / "data") in found["secret.key"]["detail"]
    assert found["credentials"]["status"] == "pass"
    assert found["paused"]["status"] == "warn"
    assert "scheduler" not in found and "canary" not in str(found)
    service = await started(tmp_path)
    try:
        with pytest.raises(Exception, match=f"in use by process {os.getpid()}"):
            await look(load({"data": tmp_path / "data"}, {}))
    finally:
        await service.close(1)
