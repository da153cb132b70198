"""What a node answers that only sends, when it is asked for anything but its health and its figures."""

from typing import Final

from starlette.types import Receive, Scope, Send

from paceline.api.door import Door
from paceline.api.problems import RefusedError
from paceline.engine.service import Service

SENDER: Final = "sender"
_SHOWN: Final = 5


class Elsewhere:
    """Refuses every request and says who takes messages; an ASGI application."""

    def __init__(self, service: Service, door: Door) -> None:
        """The nodes are those that `service` knows of at each request."""
        self._service = service
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 421. Who may not see the figures hears no names of machines.

        Raises:
            RefusedError: always.
        """
        others = (
            self._others()
            if self._door.is_known(dict(scope["headers"]))
            else "a node with the role all or api"
        )
        raise RefusedError(
            421,
            f"this node sends, and takes no messages (role sender): it answers /health and /metrics; ask {others}",
        )

    def _others(self) -> str:
        items = self._service.list_nodes()["items"]
        found = [
            f"{one['name']} (role {one['role']}, process {one['process']})"
            for one in items
            if one["role"] != SENDER and one["state"] == "alive"
        ]
        if not found:
            return "a node with the role all or api: none is running"
        more = f" or {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        return " or ".join(found[:_SHOWN]) + more
