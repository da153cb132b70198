"""The HTTP application: the hot path first, then routing; every failure a problem, never a traceback."""

from typing import Final

from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paceline.api.door import Door
from paceline.api.elsewhere import SENDER, Elsewhere
from paceline.api.ingest import Ingest
from paceline.api.pages import page_routes, watch_routes
from paceline.api.problems import ClientGoneError, RefusedError, answer_to
from paceline.api.routes import PREFIX, api_routes
from paceline.api.stopping import Stopping
from paceline.config import Settings
from paceline.engine.service import Service

_NEVER: Final = "no such address; the reference is at /docs"


class App:
    """An ASGI application."""

    def __init__(self, service: Service, settings: Settings) -> None:
        """Wire the parts. A node that only sends has no others than health and metrics."""
        self._stopping = Stopping()
        self._door = Door(service, settings.host)
        self._fast: dict[str, ASGIApp] = {}
        if settings.role == SENDER:
            routes = watch_routes(service, self._door)
            self._router = Router(routes, redirect_slashes=False, default=Elsewhere(service, self._door))
            return
        ingest = Ingest(service, settings, self._door, self._stopping)
        self._fast = {
            f"{PREFIX}/messages": ingest.single,
            f"{PREFIX}/messages/batch": ingest.batch,
        }
        self._router = Router(
            [
                *api_routes(service, settings, self._door, self._stopping),
                *page_routes(service, self._door),
            ],
            redirect_slashes=False,
            default=_nowhere,
        )

    def stop(self) -> None:
        """End streams and waits: call it when the server begins to stop, before it waits for connections."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "http":
            fast = self._fast.get(scope["path"])
            if fast is not None and scope["method"] == "POST":
                await fast(scope, receive, send)
            else:
                await self._route(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._door.check_host(dict(scope["headers"]))
            await self._router(scope, receive, watched)
        except ClientGoneError:
            return
        except Exception as error:
            answer = answer_to(error)
            if started:
                raise  # the server cuts the connection: the client must not take half an answer for a whole one
            await answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.stop()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


async def _nowhere(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RefusedError(404, _NEVER)


def build(service: Service, settings: Settings) -> App:
    """The application for a service that is open."""
    return App(service, settings)
