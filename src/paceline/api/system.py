"""Templates, keys, and the installation's own health."""

from typing import Any

from paceline.api.answers import Answer, json_answer, nothing
from paceline.api.bodies import refuse_others
from paceline.api.calls import TENANT, Call, Endpoint
from paceline.api.problems import invalid


async def templates(call: Call) -> Any:
    """All templates."""
    return await call.service.templates.list(call.caller)


async def show_template(call: Call) -> Any:
    """One template."""
    return await call.service.templates.get(call.caller, call.name)


async def put_template(call: Call) -> Any:
    """Create or replace a template."""
    return await call.service.templates.put(call.caller, call.name, await call.body())


async def delete_template(call: Call) -> Answer:
    """Remove a template."""
    await call.service.templates.delete(call.caller, call.name)
    return nothing()


async def preview(call: Call) -> Any:
    """A template filled with variables."""
    return await call.service.templates.preview(call.caller, call.name, await call.body())


async def keys(call: Call) -> Any:
    """Names and roles of the keys, never the keys."""
    return {"items": call.service.keys.list(call.caller), "next": None}


async def create_key(call: Call) -> Answer:
    """Make a key; this answer is the only place where it can be read."""
    body = await call.body()
    refuse_others(body, ("name", "role", "tenant"))
    name, role, tenant = body.get("name"), body.get("role"), body.get("tenant", call.caller.tenant)
    if not isinstance(name, str):
        raise invalid("/name", "must be a text")
    if not isinstance(role, str):
        raise invalid("/role", "must be one of viewer, sender, operator, admin")
    if tenant is not None and not isinstance(tenant, str):
        raise invalid("/tenant", "must be a text, or null for the whole installation")
    return json_answer(await call.service.keys.create(call.caller, name, role, tenant), 201)


async def revoke_key(call: Call) -> Answer:
    """Make a key worthless at once."""
    await call.service.keys.revoke(call.caller, call.name)
    return nothing()


async def nodes(call: Call) -> Any:
    """The nodes on this store."""
    call.only_installation()
    return call.service.list_nodes()


async def doctor(call: Call) -> Any:
    """Checks of the installation, each with advice."""
    call.only_installation()
    return {"checks": await call.service.doctor(reach=call.flag("reach"))}


ENDPOINTS = (
    Endpoint("GET", "/templates", "viewer", templates, TENANT),
    Endpoint("GET", "/templates/{name}", "viewer", show_template, TENANT),
    Endpoint("PUT", "/templates/{name}", "admin", put_template, TENANT),
    Endpoint("DELETE", "/templates/{name}", "admin", delete_template, TENANT),
    Endpoint("POST", "/templates/{name}/preview", "viewer", preview, TENANT),
    Endpoint("GET", "/keys", "admin", keys),
    Endpoint("POST", "/keys", "admin", create_key),
    Endpoint("DELETE", "/keys/{name}", "admin", revoke_key),
    Endpoint("GET", "/nodes", "viewer", nodes),
    Endpoint("GET", "/doctor", "admin", doctor, frozenset({"reach"})),
)
