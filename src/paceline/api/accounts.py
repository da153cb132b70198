"""Accounts and limits."""

from typing import Any

from paceline.api.answers import Answer, nothing
from paceline.api.calls import PAGED, TENANT, Call, Endpoint


async def find(call: Call) -> Any:
    """A page of accounts with their live status."""
    return await call.service.accounts.list(call.caller, *call.page())


async def show(call: Call) -> Any:
    """An account with its live status."""
    return await call.service.accounts.get(call.caller, call.name)


async def put(call: Call) -> Any:
    """Create or replace an account."""
    return await call.service.accounts.put(call.caller, call.name, await call.body())


async def delete(call: Call) -> Answer:
    """Remove an account; its messages are held."""
    await call.service.accounts.delete(call.caller, call.name)
    return nothing()


async def pause(call: Call) -> Any:
    """Send nothing through it."""
    return await call.service.accounts.pause(call.caller, call.name)


async def resume(call: Call) -> Any:
    """Send through it again."""
    return await call.service.accounts.resume(call.caller, call.name)


async def probe(call: Call) -> Any:
    """Ask the provider whether the account works."""
    return await call.service.accounts.probe(call.caller, call.name)


async def test(call: Call) -> Any:
    """Send one message through it, under its limits."""
    return await call.service.accounts.test(call.caller, call.name, await call.body())


async def queue(call: Call) -> Any:
    """What waits for it and what it did."""
    return await call.service.queues.account_queue(call.caller, call.name)


async def clear(call: Call) -> Any:
    """Remove its messages in a state."""
    return await call.service.queues.clear_account(call.caller, call.name, call.one("status"))


async def limits(call: Call) -> Any:
    """All limits that are wider than an account."""
    return await call.service.limits.list(call.caller)


async def show_limit(call: Call) -> Any:
    """One limit."""
    return await call.service.limits.get(call.caller, call.name)


async def put_limit(call: Call) -> Any:
    """Create or replace a limit."""
    return await call.service.limits.put(call.caller, call.name, await call.body())


async def delete_limit(call: Call) -> Answer:
    """Remove a limit."""
    await call.service.limits.delete(call.caller, call.name)
    return nothing()


async def simulate(call: Call) -> Any:
    """How long something would take under limits."""
    return await call.service.limits.simulate(call.caller, await call.body())


ENDPOINTS = (
    Endpoint("GET", "/accounts", "viewer", find, PAGED | TENANT),
    Endpoint("GET", "/accounts/{name}", "viewer", show, TENANT),
    Endpoint("PUT", "/accounts/{name}", "admin", put, TENANT),
    Endpoint("DELETE", "/accounts/{name}", "admin", delete, TENANT),
    Endpoint("POST", "/accounts/{name}/pause", "operator", pause, TENANT),
    Endpoint("POST", "/accounts/{name}/resume", "operator", resume, TENANT),
    Endpoint("POST", "/accounts/{name}/probe", "operator", probe, TENANT),
    Endpoint("POST", "/accounts/{name}/test", "operator", test, TENANT),
    Endpoint("GET", "/accounts/{name}/queue", "viewer", queue, TENANT),
    Endpoint("DELETE", "/accounts/{name}/queue", "operator", clear, frozenset({"status"}) | TENANT),
    Endpoint("GET", "/limits", "viewer", limits, TENANT),
    Endpoint("POST", "/limits/simulate", "viewer", simulate),
    Endpoint("GET", "/limits/{name}", "viewer", show_limit, TENANT),
    Endpoint("PUT", "/limits/{name}", "admin", put_limit, TENANT),
    Endpoint("DELETE", "/limits/{name}", "admin", delete_limit, TENANT),
)
