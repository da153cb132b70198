"""What every test gets: reproducible property tests, and no way off this machine."""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A deadline per example measures the machine, not the code; pytest-timeout ends what hangs.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples at each run, so that a red build is red again when it is looked at.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
# For the night: many more examples, new ones each time.
settings.register_profile("long", settings.get_profile("default"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stores", choices=["sqlite", "postgres", "both"], default=None,
        help="where tests marked every_store run; without it in SQLite, and those of them marked usual in both",
    )  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `every_store` get a fixture that says which store, and one run for each that is asked for."""
    mark = metafunc.definition.get_closest_marker("every_store")
    if mark is None:
        return
    asked = metafunc.config.getoption("--stores")
    kinds = {"both": ["sqlite", "postgres"], "postgres": ["postgres"], "sqlite": ["sqlite"]}.get(
        asked, ["sqlite"]
    )
    if asked is None and metafunc.definition.get_closest_marker("usual"):
        kinds = ["sqlite", "postgres"]
    if metafunc.definition.get_closest_marker("only_sqlite"):
        kinds = ["sqlite"]
    if kinds != ["sqlite"]:
        metafunc.parametrize("store_kind", kinds, indirect=True)


@pytest.fixture(autouse=True)
def store_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the test keeps its messages; set before any other fixture opens a store."""
    kind: str = getattr(request, "param", "sqlite")
    kinds: Any = sys.modules.get("tests.contracts.stores.kinds")
    if kinds is None:  # this test opens none
        yield kind
        return
    kinds.present = kind
    yield kind
    kinds.present = "sqlite"


class OutsideWorldError(RuntimeError):
    """A test tried to reach another machine."""


def _is_here(host: object) -> bool:
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return str(host) in {"", "localhost"}
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def _is_literal(host: object) -> bool:
    try:
        ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return True


def _stay_here(event: str, args: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = args[1]
        if isinstance(address, tuple) and not _is_here(address[0]):
            raise OutsideWorldError(f"a test wants to reach {address}")
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = args[0].decode() if isinstance(args[0], bytes) else args[0]
        if host is None or _is_here(host) or _is_literal(host) or host == socket.gethostname():
            return
        # What a machine without a network answers: the code under test meets a plain failure.
        raise socket.gaierror(socket.EAI_NONAME, f"tests look up no names: {host}")


# An audit hook sees every socket of the process, whoever opens it and in whichever thread. (Sockets that a
# native event loop opens itself are not seen: tests run on the standard loop.)
sys.addaudithook(_stay_here)


def pytest_sessionfinish() -> None:
    """Databases that tests made are dropped."""
    servers = sys.modules.get("tests.contracts.stores.postgres_server")
    if servers is not None:
        servers.drop_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests that were left out for want of a server are told, whatever was asked to be shown."""
    told = {
        report.longrepr[2]
        for report in terminalreporter.stats.get("skipped", [])
        if "PostgreSQL" in str(report.longrepr)
    }
    for reason in sorted(told):
        terminalreporter.write_line(f"TESTS WERE LEFT OUT: {reason}", yellow=True, bold=True)
