"""``paceline nodes``: the processes that share a store."""

from typing import Any

from paceline.cli.options import USUAL, Common
from paceline.cli.show import Column, local, note, put_json, put_table


def nodes(*, common: Common = USUAL) -> int:
    """List the nodes on the server's store, with what falls to each of them.

    Ends with 1 when one of them is silent or something is nobody's: both mend themselves within seconds.
    """
    with common.open() as server:
        found = server.get("/nodes")
    items: list[dict[str, Any]] = found["items"]
    well = not found["free"] and all(one["state"] == "alive" for one in items)
    if common.json:
        put_json(found)
        return 0 if well else 1
    put_table(_COLUMNS, (_row(one) for one in items))
    if found["free"]:
        note(f"{found['free']} of {found['partitions']} partitions are nobody's at this moment")
    return 0 if well else 1


_COLUMNS = (
    Column("node", 10, least=16),
    Column("host", 6),
    Column("process", 7, right=True),
    Column("role", 8),
    Column("state", 9, least=6),
    Column("partitions", 8, right=True),
    Column("lanes", 5, right=True),
    Column("last heard", 6),
)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    here = " (this)" if one["this"] else ""
    return (
        one["id"] + here, one["name"], str(one["process"]), one["role"], one["state"], str(one["partitions"]),
        str(one["lanes"]), local(one["heartbeat_at"]) if one["heartbeat_at"] else "",
    )  # fmt: skip
