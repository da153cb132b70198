"""A small HTTP load: connections that send the same request again as soon as it is answered.

It runs in a thread on bare sockets, so that on a machine with few cores the server, and not its client, is what
is measured.
"""

import asyncio
import select
import socket
import tempfile
import time


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def request(path: str, body: bytes, key: str) -> bytes:
    """The bytes of a POST."""
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{bearer}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Load:
    """`connections` in parallel, each with one request at a time."""

    def __init__(self, port: int, raw: bytes, connections: int) -> None:
        """Not connected yet."""
        self.port, self.raw, self.connections = port, raw, connections
        self.count = 0

    async def run(self, seconds: float) -> float:
        """Answers a second."""
        return await asyncio.to_thread(self._run, seconds)

    def _run(self, seconds: float) -> float:
        made = [socket.create_connection(("127.0.0.1", self.port), 30) for _ in range(self.connections)]
        by_number = {each.fileno(): each for each in made}
        parts: dict[int, bytes] = {}
        poll = select.epoll()
        for each in made:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(each, select.EPOLLIN)
            each.sendall(self.raw)
        start = time.perf_counter()
        end, now = start + seconds, start
        while now < end:
            for number, _ in poll.poll(1.0):
                connection = by_number[number]
                got = parts.pop(number, b"") + connection.recv(262_144)
                if _is_whole(got):
                    self.count += 1
                    connection.sendall(self.raw)
                else:
                    parts[number] = got
            now = time.perf_counter()
        rate = self.count / (now - start)
        waiting = set(by_number)
        while waiting:  # nothing of this may be under way when the next measurement begins
            for number, _ in poll.poll(1.0):
                parts[number] = parts.get(number, b"") + by_number[number].recv(262_144)
                if _is_whole(parts[number]):
                    waiting.discard(number)
        poll.close()
        for each in made:
            each.close()
        return rate


async def wrk(port: int, raw: bytes, connections: int, seconds: float) -> float:
    """Answers a second by the program of that name; it has to be installed."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = [line.split(": ", 1) for line in lines[1:] if not line.startswith(("Host:", "Content-Length:"))]
    script = f"wrk.method = 'POST'\nwrk.body = [====[{body.decode()}]====]\n" + "".join(
        f"wrk.headers['{name}'] = '{value}'\n" for name, value in headers
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        process = await asyncio.create_subprocess_exec(
            "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", file.name,
            f"http://127.0.0.1:{port}{lines[0].split()[1]}", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out = (await process.communicate())[0].decode()
    if process.returncode or "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"wrk: {out}")
    return float(out.split("Requests/sec:")[1].split()[0])


def _is_whole(answer: bytes) -> bool:
    """Whether an answer is complete; one that is no success ends the measurement."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        if not answer:
            raise RuntimeError("the server closed a connection")
        return False
    if answer[9:10] != b"2":
        raise RuntimeError(f"the server answered {answer[:200]!r}")
    start = answer.find(b"ontent-length: ", 0, end) + 15
    return len(answer) >= end + 4 + int(answer[start : answer.find(b"\r\n", start)])
