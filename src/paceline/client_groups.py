"""The client's calls by noun: accounts, limits, queues."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from paceline.client_link import Json, Link, body_of
from paceline.client_types import Message, message_of

Ready = Callable[[], Awaitable[Link]]


class Accounts:
    """The sending identities: ``app.accounts``."""

    def __init__(self, ready: Ready) -> None:
        """Calls go where the client's go."""
        self._ready = ready

    async def set(
        self, name: str, channel: str, settings: Mapping[str, Any] | None = None, **more: Any
    ) -> Json:
        """Make or change one: `limits=["20/min"]`, `interval="2s"`, `concurrency`, `quota`, `pool`, `enabled`..."""
        body = {"channel": channel, "settings": dict(settings or {}), **body_of(more)}
        return await (await self._ready()).account("put", name, body)

    async def list(self) -> list[Json]:
        """All of them with their live state."""
        link, cursor, found = await self._ready(), None, list[Json]()
        while True:
            page = await link.accounts(cursor, 1000)
            found += page["items"]
            cursor = page.get("next")
            if not cursor:
                return found

    async def get(self, name: str) -> Json:
        """One with its live state: what its limits have left, what it waits for."""
        return await (await self._ready()).account("get", name)

    async def queue(self, name: str) -> Json:
        """Counts of one: pending, processing, failed, average time."""
        return await (await self._ready()).account("queue", name)

    async def pause(self, name: str) -> Json:
        """Send nothing through it until it is resumed."""
        return await (await self._ready()).account("pause", name)

    async def resume(self, name: str) -> Json:
        """Go on after a pause."""
        return await (await self._ready()).account("resume", name)

    async def probe(self, name: str) -> Json:
        """Find out whether it works, without sending."""
        return await (await self._ready()).account("probe", name)

    async def test(
        self, name: str, to: str | None = None, text: str = "A test message from Paceline."
    ) -> Message:
        """Send one message through it now, under its limits."""
        return message_of(
            await (await self._ready()).account("test", name, body_of({"to": to, "text": text}))
        )

    async def delete(self, name: str) -> None:
        """Forget it; messages pinned to it are held."""
        await (await self._ready()).account("delete", name)


class Limits:
    """Limits wider than one account: ``app.limits``."""

    def __init__(self, ready: Ready) -> None:
        """Calls go where the client's go."""
        self._ready = ready

    async def set(self, name: str, limit: str, scope: Mapping[str, Any]) -> Json:
        """Make or change one: ``set("sms", "100/s", {"queue": "sms"})``."""
        return await (await self._ready()).limit("put", name, {"limit": limit, "scope": dict(scope)})

    async def get(self, name: str) -> Json:
        """One limit."""
        return await (await self._ready()).limit("get", name)

    async def list(self) -> list[Json]:
        """All of them."""
        return await (await self._ready()).limits()

    async def delete(self, name: str) -> None:
        """Remove one."""
        await (await self._ready()).limit("delete", name)


class Queues:
    """The queues: ``app.queues``."""

    def __init__(self, ready: Ready) -> None:
        """Calls go where the client's go."""
        self._ready = ready

    async def set(self, name: str, **settings: Any) -> Json:
        """Make or change one: `concurrency`, `max_attempts`, `backoff`, `timeout`, `retention`."""
        return await (await self._ready()).queue("put", name, body_of(settings))

    async def status(self) -> Json:
        """Counts of every queue, and their sums."""
        return await (await self._ready()).queues()

    async def pause(self, name: str) -> None:
        """Send nothing of it until it is resumed."""
        await (await self._ready()).queue("pause", name)

    async def resume(self, name: str) -> None:
        """Go on after a pause."""
        await (await self._ready()).queue("resume", name)

    async def empty(self, name: str) -> int:
        """Remove what waits in it; answers how many that was."""
        return int((await (await self._ready()).queue("empty", name))["removed"])

    async def clean(self, name: str, older_than: float, state: str = "completed") -> int:
        """Remove what ended more than `older_than` seconds ago; answers how many that was."""
        body = {"grace": round(older_than * 1000), "type": state}
        return int((await (await self._ready()).queue("clean", name, body))["removed"])


class Templates:
    """The templates: ``app.templates``."""

    def __init__(self, ready: Ready) -> None:
        """Calls go where the client's go."""
        self._ready = ready

    async def set(
        self, name: str, *, subject: str | None = None, text: str | None = None, html: str | None = None
    ) -> Json:
        """Make or change one; each part is a Jinja template."""
        body = body_of({"subject": subject, "text": text, "html": html})
        return await (await self._ready()).template("put", name, body)

    async def get(self, name: str) -> Json:
        """One template."""
        return await (await self._ready()).template("get", name)

    async def list(self) -> list[Json]:
        """All of them."""
        return await (await self._ready()).templates()

    async def preview(self, name: str, variables: Mapping[str, Any]) -> Json:
        """What it becomes with these variables."""
        return await (await self._ready()).template("preview", name, {"variables": dict(variables)})

    async def delete(self, name: str) -> None:
        """Remove one."""
        await (await self._ready()).template("delete", name)
