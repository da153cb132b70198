"""Tests cannot leave this machine, whatever the code under test tries."""

import asyncio
import socket

import pytest

# Reserved for documentation: belongs to nobody.
ELSEWHERE = ("192.0.2.1", 9)


async def test_a_connection_to_another_machine_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"wants to reach .*192\.0\.2\.1"):
        await asyncio.open_connection(*ELSEWHERE)


def test_a_datagram_to_another_machine_is_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        pytest.raises(RuntimeError, match="wants to reach"),
    ):
        datagrams.sendto(b"x", ELSEWHERE)


def test_a_name_is_not_looked_up() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("example.com", 443)


async def test_this_machine_is_reached() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
