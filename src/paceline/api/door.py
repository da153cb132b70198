"""Who may come in: the host that was asked for, the page that asks, the key and its role."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from paceline.api.bodies import Headers
from paceline.api.problems import RefusedError
from paceline.engine.keys import Caller
from paceline.engine.service import Service

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_KEY: Final = 512
_MOST_HOSTS: Final = 64
_CHALLENGE: Final = {"www-authenticate": "Bearer"}


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(netloc: str) -> str:
    """The name in ``name:port``, without the brackets of an IPv6 address, in lower case; empty if it is none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Door:
    """Checks that come before anything is read."""

    def __init__(self, service: Service, host: str) -> None:
        """`host` is the address the server listens on; only for a loopback one the Host header is checked."""
        self.keys = service.keys
        self.is_local = is_loopback(host)
        self._names = {"localhost", "127.0.0.1", "::1", host.strip("[]").lower()}
        self._good_hosts: set[bytes] = set()

    def check_host(self, headers: Headers) -> None:
        """Refuse a name that a hostile page made point at this machine."""
        host = headers.get(b"host")
        if not self.is_local or host is None or host in self._good_hosts:
            return
        if host_name(host.decode("latin-1")) not in self._names:
            raise RefusedError(403, "this server answers to localhost alone; the Host header names another")
        if len(self._good_hosts) < _MOST_HOSTS:
            self._good_hosts.add(host)

    def check_origin(self, headers: Headers) -> None:
        """Refuse what a page of another site asks for."""
        origin = headers.get(b"origin")
        if origin is None:
            if headers.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"}:
                raise RefusedError(403, "a page of another site may not ask for this")
            return
        host = headers.get(b"host", b"").decode("latin-1").lower()
        try:
            same = urlsplit(origin.decode("latin-1")).netloc.lower() == host != ""
        except ValueError:
            same = False
        if not same:
            raise RefusedError(403, "a page of another site may not ask for this (Origin is not this host)")

    def caller(self, headers: Headers) -> Caller:
        """Who holds the key in the Authorization header."""
        sent = headers.get(b"authorization")
        if sent is None:
            raise RefusedError(401, "send a key as 'Authorization: Bearer KEY'", headers=_CHALLENGE)
        if sent[:7].lower() != b"bearer " or len(sent) > _LONGEST_KEY or not sent.isascii():
            raise RefusedError(401, "the Authorization header must be 'Bearer KEY'", headers=_CHALLENGE)
        caller = self.keys.who(headers[b"authorization"][7:].decode("ascii"))
        if caller is None:
            raise RefusedError(401, "this key is not known, or it was revoked", headers=_CHALLENGE)
        return caller

    def is_known(self, headers: Headers) -> bool:
        """Whether the caller may be told of the installation: on this machine, or with a key that is no tenant's."""
        if self.is_local:
            return True
        try:
            return self.caller(headers).tenant is None
        except RefusedError:
            return False

    def require(self, headers: Headers, role: str) -> Caller:
        """Who holds the key, if it has at least `role`."""
        caller = self.caller(headers)
        if not caller.may(role):
            raise RefusedError(403, f"this takes a key with the role '{role}'; this one has '{caller.role}'")
        return caller
