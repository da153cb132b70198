"""Statistics, the scheduler, the event stream."""

from typing import Any

from paceline.api.calls import TENANT, Call, Endpoint
from paceline.api.problems import invalid
from paceline.api.stream import EventStream

TYPES = (
    "message-queued", "message-started", "message-sent", "message-retrying", "message-failed",
    "message-progress", "queue-status", "account-status", "campaign-status", "alert",
)  # fmt: skip
"""Besides these a listener that missed some gets `gap`."""


async def overview(call: Call) -> Any:
    """Totals, success rates, throughput, times."""
    return await call.service.watch.overview(call.caller)


async def realtime(call: Call) -> Any:
    """The last moments."""
    return await call.service.watch.realtime(call.caller)


async def failures(call: Call) -> Any:
    """Why messages fail, counted."""
    return await call.service.watch.failures(call.caller, call.one("by") or "code")


async def scheduler(call: Call) -> Any:
    """Whether messages are being released."""
    return await call.service.watch.scheduler(call.caller)


async def start(call: Call) -> Any:
    """Release messages again."""
    call.only_installation()
    await call.service.watch.start(call.caller)
    return await call.service.watch.scheduler(call.caller)


async def stop(call: Call) -> Any:
    """Release nothing more; calls in flight finish, messages are still taken in."""
    call.only_installation()
    await call.service.watch.stop(call.caller)
    return await call.service.watch.scheduler(call.caller)


async def events(call: Call) -> EventStream:
    """What happens, as it happens."""
    types = {one for text in call.query.get("types", ()) for one in text.split(",")}
    unknown = sorted(types.difference(TYPES))
    if unknown:
        raise invalid("/types", f"there is no type '{unknown[0][:60]}'; there are {', '.join(TYPES)}")
    last = call.header(b"last-event-id") or call.one("last_event_id")
    if last is not None and not (last.isascii() and last.isdigit() and len(last) <= 18):
        raise invalid("/last_event_id", "must be the id of an event")
    listening = call.service.watch.subscribe(
        call.caller, types or None, call.one("queue"), call.one("account"), call.one("campaign"), last
    )
    return EventStream(listening, call.stopping)


EVENTS_QUERY = frozenset({"types", "queue", "account", "campaign", "last_event_id"})
ENDPOINTS = (
    Endpoint("GET", "/stats/overview", "viewer", overview, TENANT),
    Endpoint("GET", "/stats/realtime", "viewer", realtime, TENANT),
    Endpoint("GET", "/stats/failures", "viewer", failures, frozenset({"by"}) | TENANT),
    Endpoint("GET", "/scheduler/status", "viewer", scheduler),
    Endpoint("POST", "/scheduler/start", "operator", start),
    Endpoint("POST", "/scheduler/stop", "operator", stop),
    Endpoint("GET", "/events", "viewer", events, EVENTS_QUERY | TENANT),
)
