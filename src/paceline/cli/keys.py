"""``paceline keys``: who may do what."""

from typing import Literal

from cyclopts import App

from paceline.cli.options import USUAL, Common
from paceline.cli.server import part
from paceline.cli.show import Column, local, note, put, put_json, put_table, safe

app = App(name="keys", help="Create, list and revoke keys.")


@app.command(sort_key=0)
def create(
    name: str,
    /,
    *,
    role: Literal["admin", "operator", "sender", "viewer"] = "sender",
    tenant: str | None = None,
    common: Common = USUAL,
) -> None:
    """Make a key. It is shown this once.

    Args:
        name: What it is called, in lists and in the audit log.
        role: What it may do; each role may also do what the ones after it may.
        tenant: For this tenant's things only; without it, for the whole installation.
    """
    with common.open() as server:
        answer = server.post("/keys", {"name": name, "role": role, "tenant": tenant})
    if common.json:
        put_json(answer)
        return
    put(safe(answer["key"]))
    note(f"This is the key '{safe(name)}' ({safe(answer.get('role', role))}). It is not shown again.")


@app.command(name="list", sort_key=1)
def list_(*, common: Common = USUAL) -> None:
    """List the keys, without their secrets."""
    with common.open() as server:
        answer = server.get("/keys")
    found = answer["items"]
    if common.json:
        put_json(found)
        return
    columns = (Column("name", 10), Column("role", 9), Column("tenant", 8), Column("created", 4))
    rows = ((one["name"], one["role"], one.get("tenant"), local(one.get("created_at"))) for one in found)
    put_table(columns, rows)


@app.command(sort_key=2)
def revoke(name: str, /, *, common: Common = USUAL) -> None:
    """Make a key worthless at once.

    Args:
        name: The key's name.
    """
    with common.open() as server:
        answer = server.call("DELETE", f"/keys/{part(name)}")
    if common.json:
        put_json(answer or {"revoked": name})
    else:
        put(f"{safe(name)}  revoked")
