"""Which addresses and URLs outgoing requests may use, and what is told apart when one fails."""

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from paceline.channels.addresses import may_reach
from paceline.channels.outgoing import (
    LONGEST_WAIT_MS,
    HttpClient,
    MaybeSentError,
    NotSentError,
    RefusedAddressError,
    check_url,
    networks,
    retry_after_ms,
)
from tests.contracts.peers.certificates import contexts
from tests.contracts.peers.http import CutEarly, Hang, HttpPeer, Reply

LOOPBACK = networks(["127.0.0.0/8"])

CLOSED = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.8 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 fe80::1 fec0::1 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 2001::1 3fff::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1
2002:7f00:1:: 2002:a00:1:: 2002:c0a8:101::1 100::1 5f00::1
""".split()  # noqa: SIM905 - a block of addresses reads better
OPEN = """
1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 223.255.255.255 2606:4700::1111
2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1
""".split()  # noqa: SIM905 - a block of addresses reads better


@pytest.mark.parametrize("text", CLOSED)
def test_closed_addresses(text: str) -> None:
    assert not may_reach(ip_address(text), ())


@pytest.mark.parametrize("text", OPEN)
def test_open_addresses(text: str) -> None:
    assert may_reach(ip_address(text), ())


@pytest.mark.parametrize("text", ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_allowed_networks_open_the_forms_that_carry_them(text: str) -> None:
    assert may_reach(ip_address(text), LOOPBACK)
    assert not may_reach(ip_address("10.0.0.1"), LOOPBACK)


BAD_URLS = [
    "", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "javascript:alert(1)",
    "http://", "http:///path", "http://user@example.com/", "https://user:pw@example.com/", "http://@example.com/",
    "http://example.com\\@10.0.0.1/", "http://example.com:0/", "http://example.com:65536/", "http://example.com:x/",
    "http://example.com:/", "http://exa mple.com/", "http://example.com/\r\nX: y", "http://example.com/\0",
    "http://example.com/\u202e", "http://" + "a" * 2050 + ".com/", "http://-a.com/", "http://a..com/", "http://.com/",
    "http://%31%32%37.0.0.1/", "http://localhost/", "http://LOCALHOST./", "http://a.localhost:80/",
    "http://127.0.0.1/", "http://127.0.0.1./", "http://127.1/", "http://2130706433/", "http://0x7f000001/",
    "http://0x7f.1/", "http://0177.0.0.1/", "http://127.0.0.01/", "http://10.0.0.1:8080/", "http://169.254.169.254/",
    "http://0/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[fe80::1%25eth0]/",
    "http://[::1/", "http://::1/", "http://[zz]/", "http://１２７.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://ｌｏｃａｌｈｏｓｔ/",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls(url: str) -> None:
    assert check_url(url) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:8443/a/b?c=d&e#f",
        "HTTPS://Example.COM./x",
        "https://bücher.example/ünï?q=ü",
        "https://xn--bcher-kva.example/",
        "http://8.8.8.8/",
        "http://[2606:4700::1111]:80/x",
        "https://my_service.example.com/",
        "https://example.com/@user",
        "https://example.com/" + "a" * 2000,
    ],
)
def test_good_urls(url: str) -> None:
    assert check_url(url) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::ffff:127.0.0.1]/"])
def test_allowed_urls(url: str) -> None:
    assert check_url(url, LOOPBACK) is None


@pytest.mark.parametrize("url", [None, 5, ["http://example.com"]])
def test_a_url_is_text(url: object) -> None:
    assert check_url(url) == "must be text"


class Names(AbstractResolver):
    """Answers from a list of answers, one a question; the last one for ever."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            await asyncio.Event().wait()
        return [
            ResolveResult(hostname=host, host=text, port=port, family=socket.AF_INET, proto=0, flags=0)
            for text in found
        ]

    async def close(self) -> None:
        pass


async def ask(client: HttpClient, url: str, within: float = 5) -> int:
    try:
        return (await client.post(url, b"{}", {}, within)).status
    finally:
        await client.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1"])
async def test_a_name_is_judged_by_where_it_leads(address: str) -> None:
    with pytest.raises(RefusedAddressError):
        await ask(HttpClient(resolver=Names((address,))), "http://example.com/")


async def test_a_name_that_leads_elsewhere_the_second_time_gains_nothing() -> None:
    async with HttpPeer(Reply(headers={"Connection": "close"}), Reply()) as peer:
        names = Names(("127.0.0.2",), ("127.0.0.1",))
        client = HttpClient(networks(["127.0.0.2/32"]), resolver=names)
        client._open_session().connector.clear_dns_cache()  # type: ignore[union-attr] # it is a TCPConnector
        with pytest.raises(NotSentError) as first:
            await client.post(f"http://example.com:{peer.port}/", b"", {}, 5)
        client._open_session().connector.clear_dns_cache()  # type: ignore[union-attr] # it is a TCPConnector
        with pytest.raises(RefusedAddressError):
            await client.post(f"http://example.com:{peer.port}/", b"", {}, 5)
        await client.close()
    assert first.value.code == "connect"
    assert names.asked == 2
    assert peer.connections == 0


async def test_of_several_addresses_only_the_allowed_are_tried() -> None:
    async with HttpPeer() as peer:
        client = HttpClient(networks(["127.0.0.1/32"]), resolver=Names(("10.0.0.1", "127.0.0.1")))
        assert await ask(client, f"http://example.com:{peer.port}/") == 200


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with HttpPeer() as inner, HttpPeer(Reply(302, b"", {"Location": inner.url})) as peer:
        assert await ask(HttpClient(LOOPBACK), peer.url) == 302
    assert inner.connections == 0


async def failure(client: HttpClient, url: str, within: float = 5) -> str:
    with pytest.raises((NotSentError, MaybeSentError)) as caught:
        await ask(client, url, within)
    error = caught.value
    return error.code if isinstance(error, NotSentError) else "maybe sent"


async def test_before_and_after_are_told_apart(tmp_path: Path) -> None:
    assert await failure(HttpClient(), "http://nowhere.example/") == "dns"
    assert await failure(HttpClient(resolver=Names(())), "http://nowhere.example/", 0.2) == "connect-timeout"
    assert await failure(HttpClient(), "http://example.com/", 0) == "deadline"
    assert await failure(HttpClient(), "nonsense") == "url"
    async with HttpPeer(Hang(), CutEarly()) as peer:
        assert await failure(HttpClient(LOOPBACK), peer.url, 0.2) == "maybe sent"
        assert await failure(HttpClient(LOOPBACK), peer.url) == "maybe sent"
    server, client = contexts(tmp_path, expired=True)
    async with HttpPeer(tls=server) as peer:
        assert await failure(HttpClient(LOOPBACK, tls=client), peer.url) == "tls"
        assert await failure(HttpClient(LOOPBACK), peer.url) == "tls"
        assert peer.seen == []


async def test_waiting_for_a_free_connection_counts_as_before() -> None:
    async with HttpPeer(Hang(), Hang()) as peer:
        client = HttpClient(LOOPBACK, per_host=1)
        first = asyncio.create_task(client.post(peer.url, b"{}", {}, 5))
        await peer.asked.wait()
        with pytest.raises(NotSentError) as caught:
            await client.post(peer.url, b"{}", {}, 0.2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await client.close()
    assert caught.value.code == "connect-timeout"
    assert len(peer.seen) == 1


async def test_tls_works_with_a_trusted_certificate(tmp_path: Path) -> None:
    server, client = contexts(tmp_path)
    async with HttpPeer(tls=server) as peer:
        assert await ask(HttpClient(LOOPBACK, tls=client), peer.url) == 200


async def test_a_large_answer_is_read_in_part() -> None:
    async with HttpPeer(Reply(200, b"x" * 1_000_000), Reply()) as peer:
        client = HttpClient(LOOPBACK)
        answer = await client.post(peer.url, b"", {}, 5)
        again = await client.post(peer.url, b"", {}, 5)
        await client.close()
    assert (len(answer.body), answer.whole, again.whole, peer.connections) == (65_536, False, True, 2)


async def test_a_closed_client_sends_nothing() -> None:
    client = HttpClient(LOOPBACK)
    await client.close()
    assert await failure(client, "http://127.0.0.1:1/") == "closed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5_000), (" 5 ", 5_000), ("0", 1_000), ("1.5", 2_000), ("999999999", 999_999_999_000), ("-1", None),
        ("soon", None), ("", None), ("５", None), ("1e9", None),
        ("Thu, 09 Oct 2025 08:53:30 GMT", 10_000), ("Thu, 09 Oct 2025 08:53:00 GMT", 1_000),
        ("Thu, 09 Oct 9999 08:53:00 GMT", LONGEST_WAIT_MS), ("Thu, 99 Oct 2025 08:53:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(text: str, expected: int | None) -> None:
    assert retry_after_ms({"Retry-After": text}, 1_760_000_000_000) == expected
