"""A secret in every field that takes one is used, fails in every way, and is then looked for everywhere: 0 hits."""

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.contracts.peers.http import Act, CutLate, HttpPeer, Reply
from tests.contracts.peers.smtp import RawSmtpPeer
from tests.scenarios.server import Server, clean_environment

BOT = "123456:C4NARYbotC4NARYbotC4NARYbotC4NARY"
NEW_BOT = "123456:C4NARYnewC4NARYnewC4NARYnewC4NARY"
WRONG_BOT = "C4NARYwrong-token"
HOOK = "whsec_" + base64.b64encode(b"C4NARY-of-the-hook-C4NARY").decode()
WORDS = "Bearer C4NARYauthorization"
PASSWORD = 'C4NARY p\u00e4ssword\\"'
STRANGE = "pk_C4NARYnobodys-key"
IN_URL = "C4NARYinurl"
SECRETS = [
    BOT,
    BOT.partition(":")[2],
    NEW_BOT,
    WRONG_BOT,
    HOOK,
    HOOK[6:],
    WORDS,
    PASSWORD,
    STRANGE,
    IN_URL,
    "C4NARY",
]


def forms(secret: str) -> set[bytes]:
    """What a secret may look like where somebody was careless."""
    raw = secret.encode()
    whole = base64.b64encode(raw)
    written = {raw, json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode(), raw.hex().encode()}
    return written | {
        whole,
        whole.rstrip(b"="),
        base64.urlsafe_b64encode(raw),
        secret.encode("utf-16-le"),
        repr(secret)[1:-1].encode(),
    }


def hits(places: dict[str, bytes], secrets: list[str]) -> list[tuple[str, str]]:
    return [
        (name, secret)
        for name, text in places.items()
        for secret in secrets
        if any(form in text for form in forms(secret))
    ]


class Books:
    """Everything that anybody was told."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.told: dict[str, bytes] = {}

    async def ask(self, method: str, path: str, body: Any = None, *, prefix: str = "/api/v1") -> Any:
        reply = await asyncio.to_thread(partial(self.server.ask, method, prefix + path, body))
        self.told[f"{len(self.told)} {method} {path} {reply.status}"] = (
            reply.body + json.dumps(dict(reply.headers)).encode()
        )
        return reply.json if reply.headers.get("content-type") == "application/json" else None

    async def send(self, **message: Any) -> str:
        told = await self.ask("POST", "/messages", {"max_attempts": 1, **message})
        return str(told["id"])

    async def settled(self, until: Callable[[], bool]) -> None:
        """Providers have said what they are to say, and it is written down."""
        async with asyncio.timeout(30):
            while not until() or await asyncio.to_thread(self.server.count, "processing") > 0:
                await asyncio.sleep(0.01)

    async def files(self) -> None:
        for path in sorted(self.server.data.rglob("*")):
            if path.is_file() and path.name != "admin.key":
                self.told[f"file {path.name}"] = await asyncio.to_thread(path.read_bytes)
        self.told["log"] = await asyncio.to_thread(self.server.log.read_bytes)

    async def command(self, *arguments: str) -> None:
        """What the command line shows."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "paceline.cli.main", *arguments, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd=self.server.folder,
            env=clean_environment() | {
                "PACELINE_SERVER": f"http://127.0.0.1:{self.server.port}",
                "PACELINE_KEY_FILE": str(self.server.data / "admin.key"),
            },
        )  # fmt: skip
        output, _ = await process.communicate()
        assert b"Traceback" not in output
        self.told[f"command {' '.join(arguments)}"] = output


def bots(url: str, token: str = BOT) -> dict[str, Any]:
    return {"channel": "telegram-bot", "settings": {"token": token, "base_url": url}}


async def _fail_in_every_way(books: Books) -> list[str]:
    """Use each secret, with providers that repeat it, refuse it and cut."""
    echo = {"ok": False, "error_code": 400, "description": f"no /bot{BOT}/ {BOT.partition(':')[2]} here"}
    refusals: list[Act] = [
        Reply(400, json.dumps(echo).encode()), Reply(200, b"<html>" + BOT.encode()), CutLate(),
        Reply(429, json.dumps(echo | {"error_code": 429, "parameters": {"retry_after": 1}}).encode()),
        Reply(302, b"", {"Location": f"http://127.0.0.1:1/bot{BOT}/x"}),
    ]  # fmt: skip
    hooks: list[Act] = [
        Reply(200, json.dumps({"id": HOOK[:3]}).encode()), Reply(500, f"{WORDS} {HOOK}".encode()), CutLate(),
        Reply(307, b"", {"Location": f"http://{IN_URL}@127.0.0.1:1/"}), Reply(401, WORDS.encode()),
    ]  # fmt: skip
    lines = (
        b"220 peer\r\n",
        b"250-peer\r\n250 AUTH PLAIN LOGIN\r\n",
        b"535 5.7.8 wrong: " + PASSWORD.encode() + b"\r\n",
    )
    sent: list[str] = []
    async with HttpPeer(*refusals) as bot, HttpPeer(*hooks) as hook, RawSmtpPeer(*lines) as mail:
        await books.ask("PUT", "/accounts/bot", bots(bot.url))
        settings = {"url": hook.url, "secret": HOOK, "authorization": WORDS}
        await books.ask("PUT", "/accounts/hook", {"channel": "webhook", "settings": settings, "pool": "own"})
        login: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": mail.port,
            "security": "none",
            "from": "a@example.com",
            "username": "u",
            "password": PASSWORD,
        }
        await books.ask("PUT", "/accounts/mail", {"channel": "smtp", "settings": login})
        for _ in refusals:
            sent.append(await books.send(channel="telegram-bot", account="bot", to="1", text="x"))
        for _ in hooks:
            sent.append(await books.send(channel="webhook", account="hook", payload=1))
        sent.append(await books.send(channel="smtp", account="mail", to="b@example.com", text="x"))
        await books.settled(lambda: not (bot.script or hook.script or mail.lines))
        for name in ("bot", "hook", "mail"):
            await books.ask("POST", f"/accounts/{name}/probe")
        used = json.dumps([[seen.path, seen.headers] for seen in [*bot.seen, *hook.seen]])
        assert BOT in used and WORDS in used and "webhook-signature" in used
    # Nobody listens there any more; and what is wrong is refused without being repeated.
    await books.ask("POST", "/accounts/hook/resume")
    sent.append(await books.send(channel="webhook", account="hook", payload=1))
    await books.settled(lambda: True)
    await books.ask("PUT", "/accounts/bot", bots(bot.url, NEW_BOT))
    await books.ask("PUT", "/accounts/bad", bots(bot.url, WRONG_BOT))
    await books.ask("PUT", "/accounts/bad", bots(f"http://u:{IN_URL}@example.com"))
    await books.ask("PUT", "/accounts/bad", {"channel": "telegram-bot", "settings": {"tokn": NEW_BOT}})
    await books.ask("PUT", "/accounts/bad", {"channel": "webhook", "settings": {"secret": HOOK + "%"}})
    await books.ask(
        "POST", "/messages", {"channel": "webhook", "to": f"https://u:{IN_URL}@example.com/", "payload": 1}
    )
    await books.ask("GET", f"/messages?api_key={STRANGE}")
    return sent


async def _look_everywhere(books: Books, sent: list[str]) -> None:
    for id_ in sent:
        for part in ("", "/trace", "/why"):
            await books.ask("GET", f"/messages/{id_}{part}")
    for path in ("/messages", "/messages/export?format=csv", "/messages/export?format=jsonl", "/accounts", "/accounts/bot",
                 "/accounts/hook", "/accounts/mail", "/accounts/bot/queue", "/stats/overview", "/stats/realtime",
                 "/stats/failures", "/doctor", "/keys", "/limits", "/queues/status", "/scheduler/status"):  # fmt: skip
        await books.ask("GET", path)
    for path in ("/metrics", "/openapi.json", "/health/ready", "/"):
        await books.ask("GET", path, prefix="")
    for command in (
        ["accounts", "show", "bot", "--json"],
        ["accounts", "list"],
        ["doctor"],
        ["status"],
        ["messages", "list", "--json"],
    ):
        await books.command(*command)


def _listen(server: Server, heard: list[bytes]) -> None:
    with server.events(
        "message-failed", "message-sent", "account-status", "message-retrying", "alert", "message-queued"
    ) as events:
        try:
            for event in events:
                heard.append(json.dumps(event, ensure_ascii=False).encode())
        except (OSError, ValueError):
            pass


async def test_a_secret_is_found_nowhere(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        await asyncio.to_thread(server.start, "--set", "log_level=debug")
        books, heard = Books(server), list[bytes]()
        listening = asyncio.create_task(asyncio.to_thread(_listen, server, heard))
        made = await books.ask("POST", "/keys", {"name": "shop", "role": "sender"})
        books.told.popitem()  # the one answer that shows it
        own = [made["key"], server.key]
        admin, server.key = server.key, STRANGE
        await books.ask("GET", "/messages")  # a key that nobody has, and which is refused
        server.key = admin
        sent = await _fail_in_every_way(books)
        await _look_everywhere(books, sent)
        await books.files()
        assert server.process is not None
        await asyncio.to_thread(server.process.end, signal.SIGTERM)
        await listening
        await books.files()
    books.told["events"] = b"\n".join(heard)
    assert len(heard) >= len(sent)
    assert b"***" in books.told["file paceline.db"]  # a provider repeated one, and it was blotted out
    secrets = [*SECRETS, *own]
    assert hits(books.told, secrets) == []
    assert hits({"a place": b"x " + PASSWORD.encode()}, [PASSWORD]) == [("a place", PASSWORD)]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_is_looked_for_would_be_found(secret: str) -> None:
    for text in (
        secret,
        json.dumps({"a": secret}),
        quote(secret),
        repr([secret]),
        base64.b64encode(secret.encode()).decode(),
    ):
        assert hits({"here": text.encode()}, [secret])
