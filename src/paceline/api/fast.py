"""The fast lane: a request whose head came before goes to its handler without being read by the parser again.

A handler that answered a plain request says what takes the body of the next one that has the same head, byte for
byte, and arrives whole. Everything else, and everything that this does not want to answer, takes the ordinary
path: nothing of it was given to the parser, so it begins there as if nothing had happened.
"""

import asyncio
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from paceline.api.answers import Answer, Header
from paceline.api.ingest import ACCEPTED, EXTENSION, Again, Reply
from paceline.api.problems import RefusedError, answer_to

_MOST_HEADS: Final = 2_000
_LONGEST_HEAD: Final = 4_096
_MOST_HELD: Final = 65_536
_END: Final = b"\r\n\r\n"
_NOT_PLAIN: Final = frozenset({b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
_METHODS: Final = ("connection_lost", "data_received", "shutdown", "timeout_keep_alive_handler")
_OF_A_CONNECTION: Final = frozenset({
    "config", "cycle", "flow", "limit_concurrency", "loop", "pipeline", "scope", "server_state",
    "timeout_keep_alive", "timeout_keep_alive_task", "transport",
})  # fmt: skip
_OF_A_REQUEST: Final = frozenset({"keep_alive", "more_body", "response_complete", "scope"})


class Known(NamedTuple):
    """What follows a head that came before: a body of this size, for this handler."""

    size: int
    again: Again


class Lane:
    """What the connections of a server share."""

    def __init__(self) -> None:
        """No head came yet."""
        self.heads: dict[bytes, Known] = {}
        self._of: list[Header] | None = None
        self._start = b""

    def learn(self, head: bytes, size: int, again: Again) -> None:
        """Remember a head; beyond a number of them the oldest is forgotten."""
        heads = self.heads
        if len(heads) >= _MOST_HEADS and head not in heads:
            del heads[next(iter(heads))]
        heads[head] = Known(size, again)

    def start(self, default: list[Header]) -> bytes:
        """An answer up to the value of its content-length; `default` is replaced, never changed, by the server."""
        if default is not self._of:
            self._of, self._start = default, _head(202, [*default, *ACCEPTED]) + b"content-length: "
        return self._start


class FastProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the fast lane in front of it."""

    lane: ClassVar[Lane]

    def __init__(self, *given: Any, **named: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*given, **named)
        self._is_open = not self.config.access_log and self.limit_concurrency is None
        self._awaited: bytes | None = None
        """The request that the lane is about to answer."""
        self._held: list[bytes] = []
        """What came behind it."""
        self._ends = False
        self._free_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take a whole request with a known head; give anything else to the parser."""
        self._free_since = None
        if self._awaited is not None:
            self._hold(data)
            return
        end = data.find(_END) + 4
        cycle: RequestResponseCycle | None = self.cycle
        if end < 4 or not self._is_open or not self._is_between(cycle):
            super().data_received(data)
            return
        head = data[:end]
        known = self.lane.heads.get(head)
        if known is None:
            super().data_received(data)
            if end <= _LONGEST_HEAD and self.cycle is not cycle:
                self._offer(head, len(data) - end)
        elif known.size != len(data) - end or self.flow.write_paused:
            super().data_received(data)
        else:
            self._awaited = data
            if known.again(data[end:], self._answered):
                if self.timeout_keep_alive_task is not None:
                    self.timeout_keep_alive_task.cancel()
                    self.timeout_keep_alive_task = None
            else:
                self._awaited = None
                super().data_received(data)
                self._offer(head, known.size)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there to be answered."""
        self._held.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read in the form of every other refusal."""
        answer = answer_to(RefusedError(400, "this is not a request that HTTP knows; " + msg))
        head = _head(answer.status, [*self.server_state.default_headers, *answer.headers])
        self.transport.write(head + b"connection: close\r\n\r\n" + answer.body)
        self.transport.close()

    def shutdown(self) -> None:
        """The server stops: close, after the answer if one is due."""
        if self._awaited is None:
            super().shutdown()
        else:
            self._ends = True

    def _is_between(self, cycle: RequestResponseCycle | None) -> bool:
        """The last request was read and answered in full, and not a byte of another one is in the parser."""
        if cycle is None:
            scope: HTTPScope | None = self.scope
            return scope is None
        return (
            cycle.response_complete and cycle.keep_alive and not cycle.more_body and cycle.scope is self.scope
        )

    def _offer(self, head: bytes, size: int) -> None:
        """Let the handler that was just started teach us this head, if what came is one plain request."""
        cycle: RequestResponseCycle | None = self.cycle
        scope = self.scope
        if (
            cycle is None
            or cycle.scope is not scope
            or cycle.more_body
            or not cycle.keep_alive
            or self.pipeline
        ):
            return
        if scope["method"] != "POST" or scope["http_version"] != "1.1" or scope["query_string"]:
            return
        headers = dict(scope["headers"])
        if headers.get(b"content-length") != b"%d" % size or not _NOT_PLAIN.isdisjoint(headers):
            return
        if head.count(b"\n") == head.count(b"\r\n"):  # else the parser may see its end where we do not
            scope["extensions"] = {EXTENSION: {"learn": partial(self.lane.learn, head, size)}}

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        if sum(map(len, self._held)) > _MOST_HELD:
            self.flow.pause_reading()

    def _answered(self, reply: Reply) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is None or self.transport.is_closing():
            return
        if reply is None:
            super().data_received(awaited)
            if self._ends:
                super().shutdown()
        else:
            self._write(reply)
            if self._ends:
                self.transport.close()
                return
            self._rest()
        if self._held:
            held = b"".join(self._held)
            self._held.clear()
            self.flow.resume_reading()
            self.data_received(held)

    def _write(self, reply: bytes | Answer) -> None:
        default = self.server_state.default_headers
        self.server_state.total_requests += 1
        last = b"connection: close\r\n\r\n" if self._ends else b"\r\n"
        if isinstance(reply, bytes):
            start = self.lane.start(default)
            self.transport.write(b"%b%d\r\n%b%b" % (start, len(reply), last, reply))
        else:
            self.transport.write(_head(reply.status, [*default, *reply.headers]) + last + reply.body)

    def _rest(self) -> None:
        """Close the connection if nothing comes; a single timer looks after many requests."""
        self._free_since = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._free_since is None:
            return  # busy: what answers it sees to the rest
        left = self._free_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch = self.loop.call_later(left, self._look)
        else:
            self.timeout_keep_alive_handler()


def _head(status: int, headers: list[Header]) -> bytes:
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers)


def protocol() -> type[HttpToolsProtocol]:
    """The protocol for one server; uvicorn's own where its parts are not what this was made for."""
    if not fits(HttpToolsProtocol, RequestResponseCycle):
        return HttpToolsProtocol
    return type("FastProtocol", (FastProtocol,), {"lane": Lane()})


def fits(connection: type, request: type) -> bool:
    """Whether the two have what the fast lane looks at."""
    try:
        return (
            all(hasattr(connection, name) for name in _METHODS)
            and set(connection.__init__.__code__.co_names) >= _OF_A_CONNECTION  # type: ignore[misc]  # only looked at
            and set(request.__init__.__code__.co_names) >= _OF_A_REQUEST  # type: ignore[misc]  # only looked at
        )
    except AttributeError:
        return False
