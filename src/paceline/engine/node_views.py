"""The nodes on a store as JSON."""

import os
import socket
from typing import Any

from paceline.engine.core import Core
from paceline.model.checks import print_time
from paceline.model.nodes import PARTITIONS, Node, Standing, partition_of


def list_nodes(core: Core, standing: Standing | None, me: str) -> dict[str, Any]:
    """All of them as they were at a look, with what falls to each."""
    if standing is None:
        return _page([], 0)
    items = [_view(node, standing, me, core) for node in standing.nodes]
    return _page(items, sum(owner is None for owner in standing.owners))


def list_alone(core: Core) -> dict[str, Any]:
    """The same for a process that has its store to itself."""
    alone = {
        "id": "alone", "name": socket.gethostname(), "process": os.getpid(), "role": "all", "this": True, "state": "alive",
        "started_at": None, "heartbeat_at": None, "lease_ends_at": None, "clock_off_ms": 0, "partitions": PARTITIONS,
        "lanes": len(core.directory.lanes),
    }  # fmt: skip
    return _page([alone], 0)


def _view(node: Node, standing: Standing, me: str, core: Core) -> dict[str, Any]:
    owned = frozenset(n for n, owner in enumerate(standing.owners) if owner == node.id)
    return {
        "id": node.id, "name": node.name, "process": node.process, "role": node.role, "this": node.id == me,
        "state": "silent" if node.lapsed else "alive", "started_at": print_time(node.started_at),
        "heartbeat_at": print_time(node.heartbeat_at), "lease_ends_at": print_time(node.lease_ends_at),
        "clock_off_ms": node.off, "partitions": len(owned),
        "lanes": sum(partition_of(lane) in owned for lane in core.directory.lanes),
    }  # fmt: skip


def _page(items: list[dict[str, Any]], free: int) -> dict[str, Any]:
    return {"items": items, "next": None, "partitions": PARTITIONS, "free": free}
