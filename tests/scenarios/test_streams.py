"""Streams under abuse: senseless resume points, readers that do not read, lines of every kind, files cut in the middle."""

import csv
import http.client
import io
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scenarios.server import Reply, Server, until

LONGEST = 1_000_000
EVENTS = "/api/v1/events"
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("streams")) as server:
        server.start("--set", f"max_body={LONGEST}")
        server.api("PUT", "/queues/email", {"concurrency": 1})
        yield server
        assert server.ask("GET", "/health/ready").status == 200
        log = server.log.read_text("utf-8")
    assert "Traceback" not in log
    assert '"level": "error"' not in log


def happen(server: Server) -> None:
    """Let an event come about."""
    server.api("POST", "/queues/email/pause")
    server.api("POST", "/queues/email/resume")


class Listener:
    """A connection that listens, read only as far as the test wants."""

    def __init__(self, server: Server, last: bytes | None = None, query: str = "") -> None:
        self.line = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"GET {EVENTS}{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\n".encode()
        if last is not None:
            head += b"Last-Event-ID: " + last + b"\r\n"
        self.line.sendall(head + b"\r\n")

    def read(self, *ends: bytes) -> bytes:
        """What comes until it ends like one of these, or the connection does."""
        heard = b""
        while not any(end in heard for end in ends):
            part = self.line.recv(65_536)
            if not part:
                break
            heard += part
        return heard

    def begin(self) -> "Listener":
        assert b" 200 OK" in self.read(b"retry: 3000\n\n")
        return self

    def close(self) -> None:
        self.line.close()


def plain(text: bytes) -> bool:
    return not set(text) & {0, 10, 13} and text.strip(b" \t") == text


@QUICK
@given(last=st.one_of(
    st.binary(max_size=40).filter(plain), st.integers(-(10**25), 10**25).map(lambda number: b"%d" % number),
    st.sampled_from([b"", b"0", b"00", b"1e3", b"+1", b"1.0", b"0x1", b"1" * 18, b"1" * 19, b"9" * 7000, b"1,2", b"\xb2"]),
))  # fmt: skip
def test_any_resume_point_is_taken_or_refused_by_name(server: Server, last: bytes) -> None:
    listener = Listener(server, last)
    heard = listener.read(b"retry: 3000\n\n", b"}]}", b"}")
    listener.close()
    good = last == b"" or (last.isdigit() and len(last) <= 18)
    status = heard.split(b" ")[1]
    if any((sign < 32 and sign != 9) or sign == 127 for sign in last):
        assert status in {b"400", b"422"}  # no header may hold these
    elif good:
        assert status == b"200", (last, heard)
    else:
        assert status == b"422", (last, heard)
        told = json.loads(heard.partition(b"\r\n\r\n")[2])
        assert told["errors"] == [{"field": "/last_event_id", "problem": "must be the id of an event"}]


@pytest.mark.parametrize("last", [b"0", b"1", b"9" * 18])
def test_a_resume_point_that_is_none_of_ours_is_told_as_a_gap(server: Server, last: bytes) -> None:
    listener = Listener(server, last)
    heard = listener.read(b"event: gap")
    listener.close()
    assert b"event: gap" in heard


def test_a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing_untold(server: Server) -> None:
    slow, quick = Listener(server).begin(), Listener(server, query="?types=queue-status").begin()
    text = {
        "channel": "webhook",
        "to": "http://127.0.0.1:1/",
        "payload": "x",
        "delay": "9h",
        "source": "s" * 200,
    }
    for _ in range(3):
        server.send_all([text] * 3_000)
    happen(server)
    assert b"queue-status" in quick.read(b"queue-status")  # at once, while the other has read nothing
    heard = slow.read(b'"paused":false}')
    ids = [int(line[4:]) for line in heard.split(b"\n") if line.startswith(b"id: ")]
    assert ids == sorted(set(ids))
    assert heard.count(b"event: message-queued") == 9_000 or b"this connection was too slow" in heard
    slow.close()
    quick.close()
    removed = server.api("POST", "/messages/actions", {"action": "delete", "filter": {"source": "s" * 200}})
    assert removed["changed"] == 9_000


def test_many_readers_come_and_go(server: Server) -> None:
    """Some leave without a word, some close one half of the connection; all others hear what happens."""

    def files() -> int:
        return len(server_files(server))

    before = files()
    with ExitStack() as stack:
        listeners = [Listener(server).begin() for _ in range(200)]
        for listener in listeners:
            stack.callback(listener.close)
        assert files() >= before + 150
        for listener in listeners[:50]:
            listener.close()
        for listener in listeners[50:60]:
            listener.line.shutdown(socket.SHUT_WR)
        happen(server)
        for listener in listeners[60:]:
            assert b"queue-status" in listener.read(b"queue-status")
    until(lambda: files() <= before + 2, "all connections are forgotten")


def server_files(server: Server) -> list[Path]:
    return list(Path(f"/proc/{server.pid}/fd").iterdir())


# -- lines

GOOD = {"channel": "webhook", "to": "http://127.0.0.1:1/", "delay": "9h", "source": "lines"}
NAMED = st.integers(0, 10**9).map(lambda n: json.dumps(GOOD | {"payload": n}).encode())
BROKEN = st.sampled_from([
    b"{", b"}", b"null", b"[]", b"1", b'"x"', b"nonsense", b"{}{}", b'{"channel":"webhook"', b"\xff\xfe", b"\xef\xbb\xbf{}",
    b'{"a":"\xed\xa0\x80"}', b"[" * 5000, b'{"channel":"smtp","to":"a\\u0000@b"}', b"x" * (LONGEST + 1), b"\x00", b"{}\r{}",
    b'{"channel":"webhook","channel":"webhook"}',
])  # fmt: skip
EMPTY = st.sampled_from([b"", b" ", b"\r", b"\t"])
LINES = st.lists(st.one_of(NAMED, NAMED, BROKEN, EMPTY, st.binary(max_size=50).filter(lambda b: b"\n" not in b)), max_size=12)  # fmt: skip


def posted(server: Server, pieces: list[bytes], *, whole: bool = True) -> Reply | None:
    """NDJSON in chunks as they are given; not `whole`: the connection is cut instead of ended."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.putrequest("POST", "/api/v1/messages/batch")
        for name, value in (
            ("Content-Type", "application/x-ndjson"),
            ("Transfer-Encoding", "chunked"),
            ("Authorization", f"Bearer {server.key}"),
        ):
            connection.putheader(name, value)
        connection.endheaders()
        for piece in pieces:
            if piece:
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if not whole:
            return None
        connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def cut(text: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(each % (len(text) + 1) for each in at), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def taken(server: Server) -> list[Any]:
    answer = server.ask("GET", "/api/v1/messages/export?format=jsonl&source=lines")
    found = [json.loads(line)["payload"] for line in answer.body.split(b"\n") if line]
    if found:
        server.api("POST", "/messages/actions", {"action": "delete", "filter": {"source": "lines"}})
    return sorted(found)


@QUICK
@given(
    lines=LINES,
    ends=st.lists(st.sampled_from([b"\n", b"\r\n"])),
    mark=st.booleans(),
    at=st.lists(st.integers(0, 10**6), max_size=5),
)
def test_of_any_lines_the_good_are_taken_and_the_bad_are_named(
    server: Server, lines: list[bytes], ends: list[bytes], mark: bool, at: list[int]
) -> None:
    text = (b"\xef\xbb\xbf" if mark else b"") + b"".join(
        line + (ends[index % len(ends)] if ends else b"\n") for index, line in enumerate(lines)
    )
    seen = [line for line in text.split(b"\n") if line.strip()]
    answer = posted(server, cut(text, at))
    assert answer is not None
    if not seen:
        assert answer.status in {202, 422}
        return
    assert answer.status == 202, answer.body
    told = answer.json
    assert sorted(each["index"] for each in [*told["accepted"], *told["rejected"]]) == list(range(len(seen)))
    assert all(each["errors"][0]["problem"] for each in told["rejected"])
    good = [index for index, line in enumerate(seen) if line.startswith(b'{"channel": "webhook", "to"')]
    assert [each["index"] for each in told["accepted"]] == good
    assert taken(server) == sorted(json.loads(seen[index])["payload"] for index in good)


@QUICK
@given(count=st.integers(1, 20), at=st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_lines_that_break_off_store_nothing(server: Server, count: int, at: list[int]) -> None:
    text = b"\n".join(json.dumps(GOOD | {"payload": n}).encode() for n in range(count))
    assert posted(server, cut(text, at), whole=False) is None
    assert taken(server) == []


# -- files


@QUICK
@given(texts=st.lists(st.text(max_size=30).filter(lambda text: text.strip("\0")), min_size=1, max_size=5))
def test_whatever_was_sent_an_export_reads_back(server: Server, texts: list[str]) -> None:
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    server.send_all([GOOD | {"payload": {"t": text}, "metadata": {"m": text}} for text in clean])
    lines = server.ask("GET", "/api/v1/messages/export?format=jsonl&source=lines").body
    assert lines.endswith(b"\n")
    rows = [json.loads(line) for line in lines[:-1].split(b"\n")]
    assert [row["payload"]["t"] for row in reversed(rows)] == clean
    table = server.ask("GET", "/api/v1/messages/export?format=csv&source=lines").body.decode()
    cells = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [json.loads(cell["metadata"])["m"] for cell in reversed(cells)] == clean
    server.api("POST", "/messages/actions", {"action": "delete", "filter": {"source": "lines"}})


def test_a_download_that_is_left_in_the_middle_is_forgotten(server: Server) -> None:
    server.send_all([GOOD | {"payload": "x" * 2_000}] * 1_500)
    before = len(server_files(server))
    for _ in range(10):
        line = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"GET /api/v1/messages/export?format=jsonl HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(1000)
        line.close()
    until(lambda: len(server_files(server)) <= before + 2, "the downloads are forgotten")
    server.api("POST", "/messages/actions", {"action": "delete", "filter": {"source": "lines"}})
