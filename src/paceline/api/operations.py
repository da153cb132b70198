"""Back-ups of the running store, and the hold."""

from typing import Any

from paceline.api.answers import Answer, json_answer
from paceline.api.calls import Call, Endpoint


async def backups(call: Call) -> Any:
    """The finished back-ups."""
    return {"items": await call.service.backups.list(call.caller), "next": None}


async def back_up(call: Call) -> Answer:
    """Make one; answered when it is whole and on disk."""
    return json_answer(await call.service.backups.make(call.caller, await call.body()), 201)


async def hold(call: Call) -> Any:
    """Whether everything is on hold."""
    return call.service.holds.status(call.caller)


async def begin_hold(call: Call) -> Any:
    """Send nothing more until it is released, over restarts as well."""
    return await call.service.holds.hold(call.caller, await call.body())


async def release(call: Call) -> Any:
    """Send again."""
    return await call.service.holds.release(call.caller, await call.body(), call.flag("dry_run"))


ENDPOINTS = (
    Endpoint("GET", "/backups", "admin", backups),
    Endpoint("POST", "/backups", "admin", back_up),
    Endpoint("GET", "/hold", "viewer", hold),
    Endpoint("POST", "/hold", "operator", begin_hold),
    Endpoint("POST", "/hold/release", "admin", release, frozenset({"dry_run"})),
)
