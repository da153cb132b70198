"""Queues and the jobs in them."""

from typing import Any

from paceline.api.answers import Answer, nothing
from paceline.api.bodies import refuse_others
from paceline.api.calls import MOST_IN_A_PAGE, TENANT, Call, Endpoint
from paceline.api.problems import invalid

_FARTHEST = 1_000_000


async def find(call: Call) -> Any:
    """All queues with their settings."""
    return await call.service.queues.list(call.caller)


async def status(call: Call) -> Any:
    """The counts of all queues."""
    return await call.service.queues.status(call.caller)


async def put(call: Call) -> Any:
    """Create a queue or change its settings."""
    return await call.service.queues.put(call.caller, call.name, await call.body())


async def jobs(call: Call) -> Any:
    """Jobs number `start` to `end` of a view."""
    view = call.one("status") or "waiting"
    start = call.whole("start", 0, _FARTHEST, 0)
    end = call.whole("end", 0, _FARTHEST + MOST_IN_A_PAGE, start + 10)
    return await call.service.queues.jobs(call.caller, call.name, view, start, end)


async def job(call: Call) -> Any:
    """One job."""
    return await call.service.queues.job(call.caller, call.name, call.path["id"])


async def remove_job(call: Call) -> Answer:
    """Remove one job."""
    await call.service.queues.remove_job(call.caller, call.name, call.path["id"])
    return nothing()


async def retry_job(call: Call) -> Any:
    """Send one job again."""
    return await call.service.queues.retry_job(call.caller, call.name, call.path["id"])


async def pause(call: Call) -> Any:
    """Send nothing of this queue."""
    return await call.service.queues.pause(call.caller, call.name)


async def resume(call: Call) -> Any:
    """Send this queue's messages again."""
    return await call.service.queues.resume(call.caller, call.name)


async def empty(call: Call) -> Any:
    """Remove everything that waits in it."""
    return await call.service.queues.empty(call.caller, call.name)


async def clean(call: Call) -> Any:
    """Remove ended jobs of a type that ended longer ago than `grace` milliseconds."""
    body = await call.body()
    refuse_others(body, ("grace", "type"))
    grace, kind = body.get("grace", 0), body.get("type", "completed")
    if isinstance(grace, bool) or not isinstance(grace, int) or not 0 <= grace <= 10**13:
        raise invalid("/grace", "must be a whole number of milliseconds, at least 0")
    if not isinstance(kind, str):
        raise invalid("/type", "must be a text such as 'completed'")
    return await call.service.queues.clean(call.caller, call.name, grace, kind)


ENDPOINTS = (
    Endpoint("GET", "/queues", "viewer", find, TENANT),
    Endpoint("GET", "/queues/status", "viewer", status, TENANT),
    Endpoint("PUT", "/queues/{name}", "admin", put),
    Endpoint("GET", "/queues/{name}/jobs", "viewer", jobs, frozenset({"status", "start", "end"}) | TENANT),
    Endpoint("GET", "/queues/{name}/jobs/{id}", "viewer", job, TENANT),
    Endpoint("DELETE", "/queues/{name}/jobs/{id}", "operator", remove_job, TENANT),
    Endpoint("POST", "/queues/{name}/jobs/{id}/retry", "operator", retry_job, TENANT),
    Endpoint("POST", "/queues/{name}/pause", "operator", pause),
    Endpoint("POST", "/queues/{name}/resume", "operator", resume),
    Endpoint("DELETE", "/queues/{name}/empty", "operator", empty, TENANT),
    Endpoint("POST", "/queues/{name}/clean", "operator", clean, TENANT),
)
