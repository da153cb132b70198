"""Messages: look, change, act on many, export. Taking them in is in `ingest`."""

from typing import Any

from paceline.api.answers import Answer, nothing
from paceline.api.bodies import refuse_others
from paceline.api.calls import PAGED, Call, Endpoint
from paceline.api.export import Export
from paceline.api.problems import invalid

SETTLED = ("completed", "failed", "pending")
FILTERS = frozenset({
    "queue", "channel", "account", "pool", "tenant", "campaign", "batch", "group", "source", "kind", "code", "state",
    "to", "priority", "created_from", "created_to", "q",
})  # fmt: skip


async def batch(call: Call) -> Any:
    """Counts by state, progress and eta of a batch."""
    return await call.service.messages.batch(call.caller, call.name)


async def find(call: Call) -> Any:
    """A page of messages, newest first."""
    cursor, limit = call.page()
    wanted = {name: values for name, values in call.query.items() if name in FILTERS}
    return await call.service.messages.find(call.caller, wanted, cursor, limit)


async def export(call: Call) -> Export:
    """All that match, streamed."""
    form = call.choice("format", ("csv", "jsonl"))
    if form is None:
        raise invalid("/format", "is missing; csv or jsonl")
    wanted = {name: values for name, values in call.query.items() if name in FILTERS}
    return await Export.begin(call.service.messages.export(call.caller, wanted), form)


async def show(call: Call) -> Any:
    """A message with its attempts."""
    return await call.service.messages.get(call.caller, call.name)


async def trace(call: Call) -> Any:
    """What happened to a message, and when."""
    return await call.service.messages.trace(call.caller, call.name)


async def why(call: Call) -> Any:
    """Why a message waits."""
    return await call.service.messages.why(call.caller, call.name)


async def patch(call: Call) -> Any:
    """Change a waiting message."""
    return await call.service.actions.patch(call.caller, call.name, await call.body())


async def retry(call: Call) -> Any:
    """Send it again, or at once."""
    return await call.service.actions.retry(call.caller, call.name)


async def cancel(call: Call) -> Any:
    """Withdraw a waiting message."""
    return await call.service.actions.cancel(call.caller, call.name)


async def settle(call: Call) -> Any:
    """Say what became of an uncertain one."""
    body = await call.body()
    refuse_others(body, ("as",))
    became = body.get("as")
    if became not in SETTLED:
        raise invalid("/as", f"must be one of {', '.join(SETTLED)}")
    return await call.service.actions.settle(call.caller, call.name, became)


async def delete(call: Call) -> Answer:
    """Remove a message that waits or has ended."""
    await call.service.actions.delete(call.caller, call.name)
    return nothing()


async def act(call: Call) -> Any:
    """Do one thing to every message that a filter or a list of ids names."""
    return await call.service.actions.act(call.caller, await call.body(), call.flag("dry_run"))


ENDPOINTS = (
    Endpoint("GET", "/batches/{id}", "viewer", batch),
    Endpoint("GET", "/messages", "viewer", find, FILTERS | PAGED),
    Endpoint("GET", "/messages/export", "viewer", export, FILTERS | {"format"}),
    Endpoint("POST", "/messages/actions", "operator", act, frozenset({"dry_run"})),
    Endpoint("GET", "/messages/{id}", "viewer", show),
    Endpoint("PATCH", "/messages/{id}", "operator", patch),
    Endpoint("DELETE", "/messages/{id}", "operator", delete),
    Endpoint("GET", "/messages/{id}/trace", "viewer", trace),
    Endpoint("GET", "/messages/{id}/why", "viewer", why),
    Endpoint("POST", "/messages/{id}/retry", "operator", retry),
    Endpoint("POST", "/messages/{id}/cancel", "sender", cancel),
    Endpoint("POST", "/messages/{id}/settle", "operator", settle),
)
