"""Which network addresses an outgoing request may reach, and which URLs are well-formed enough to try."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]

LONGEST_URL = 2048
"""The longest URL taken, in characters; common servers and proxies stop not far above."""

# IANA IPv4 Special-Purpose Address Registry (RFC 6890 and its updates), and multicast (RFC 5771). Spelt out
# because what ipaddress calls private or global differs between the Python releases we run on.
_CLOSED_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network, and the unspecified address
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: cloud metadata services live here
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# RFC 4291: everything outside 2000::/3 is loopback, unspecified, link-local, unique local, multicast or unassigned.
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052

_PLAIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#\\@:\[\]\s%]*)"
    r"(?P<port>:[0-9]*)?"
    r"(?P<rest>[/?#][^\\\s]*)?"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOOPBACK: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def networks(texts: tuple[str, ...] | list[str]) -> Networks:
    """The networks that `texts` name, for example ``["127.0.0.0/8", "fd00::/8"]``. Raises ValueError."""
    return tuple(ip_network(text.strip(), strict=True) for text in texts)


def may_reach(address: Address, allow: Networks) -> bool:
    """True where `address` is public or inside one of the networks in `allow`.

    An IPv6 address that carries an IPv4 one (mapped, NAT64, 6to4) is judged by what it carries as well:
    the packet ends up there.
    """
    if any(address in network for network in allow):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    carried = address.ipv4_mapped or address.sixtofour
    if carried is None and address in _NAT64:
        carried = IPv4Address(int(address) & 0xFFFFFFFF)
    if carried is not None:
        return may_reach(carried, allow)
    return address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


def may_reach_text(text: str, allow: Networks) -> bool:
    """`may_reach` for an address as a resolver or a socket gives it; False for anything that is none."""
    try:
        return may_reach(ip_address(text.partition("%")[0]), allow)
    except ValueError:
        return False


def check_url(url: object, allow: Networks = ()) -> str | None:
    """What is wrong with `url` as the target of a request, told without asking DNS; None when it may be tried.

    A name is judged again, by its address, when the connection is made.
    """
    if not isinstance(url, str):
        return "must be text"
    if len(url) > LONGEST_URL:
        return f"must be at most {LONGEST_URL} characters long"
    return _check_url(url, allow)


@lru_cache(maxsize=1024)
def _check_url(url: str, allow: Networks) -> str | None:
    if not url.isprintable():
        return "must not contain control characters"
    match = _PLAIN.fullmatch(url)
    if match is None:
        if "@" in url.partition("://")[2].split("/")[0]:
            return "must not contain a user name or password"
        return "must be an http or https URL such as https://example.com/path"
    if match["scheme"].lower() not in ("http", "https"):
        return "must begin with http:// or https://"
    port = match["port"]
    if port is not None and (not 2 <= len(port) <= 6 or not 1 <= int(port[1:]) <= 65535):
        return "must have a port between 1 and 65535"
    host = match["host"]
    if not host:
        return "must have a host"
    if not url.isascii():
        # What a client makes of full-width digits and the like is decided by the library that will be used.
        try:
            host = URL(url).raw_host or ""
        except (ValueError, UnicodeError):
            return "must have a valid host name"
    return _host_problem(host.lower(), allow)


def _host_problem(host: str, allow: Networks) -> str | None:
    """What is wrong with a host in lower-case ASCII: a bracketed or bare address, or a name."""
    literal = host.strip("[]")
    if host.startswith("[") or ":" in host:
        try:
            return None if may_reach(IPv6Address(literal), allow) else _NOT_ALLOWED
        except ValueError:
            return "must have a valid IPv6 address between the brackets"
    name = host.removesuffix(".")
    labels = name.split(".")
    # Resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as addresses: whoever writes one of those hides something.
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            address = IPv4Address(host)
        except ValueError:
            return "must write an IPv4 address as four plain decimal numbers"
        return None if may_reach(address, allow) else _NOT_ALLOWED
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "must have a valid host name"
    if labels[-1] == "localhost" and not any(net in allow or _covers(allow, net) for net in _LOOPBACK):
        return _NOT_ALLOWED
    return None


def _covers(allow: Networks, wanted: IPv4Network | IPv6Network) -> bool:
    """True where some network in `allow` overlaps `wanted`."""
    return any(net.version == wanted.version and net.overlaps(wanted) for net in allow)


_NOT_ALLOWED = (
    "must not lead to a private, loopback or otherwise reserved address, unless the operator allows it "
    "(setting outgoing_allow)"
)
