"""A PostgreSQL server with a standby that every commit waits for, for tests of what a promotion does. Not tests."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.contracts.stores.postgres_server import PrivateServer, children, execute, in_thread

_SOON = "wal_retrieve_retry_interval=100ms"
"""A standby that lost its primary asks again so often, and commits wait for it."""


class Standby(PrivateServer):
    """A copy of a running server that follows it until it is promoted."""

    def __init__(self, primary: PrivateServer) -> None:
        self._primary = primary
        super().__init__(_SOON, "hot_standby=on")

    def promote(self) -> None:
        """From now on it takes writes."""
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It hears nothing meanwhile: a commit on the primary is made there, and its answer waits."""
        all_of_it = [self.first, *children(self.first)]
        for process in all_of_it:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in all_of_it:
                os.kill(process, signal.SIGCONT)

    def _make(self) -> None:
        source = self._primary.url
        self._run(
            "pg_basebackup", "-D", self._data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source
        )


class Pair:
    """Both, with the URL that names both."""

    def __init__(self) -> None:
        self.primary = PrivateServer(_SOON)
        try:
            self.standby = Standby(self.primary)
        except BaseException:
            self.primary.remove()
            raise
        in_thread(
            lambda: execute(
                self.primary.url,
                "ALTER SYSTEM SET synchronous_standby_names = '*'",
                "SELECT pg_reload_conf()",
            )
        )
        self.url = (
            f"postgresql://postgres@127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}/postgres"
        )

    def fail_over(self) -> None:
        """The primary is gone for good, and the standby takes its place."""
        self.primary.stop("immediate")
        self.standby.promote()

    def remove(self) -> None:
        """Stop both and delete their folders."""
        for server in (self.standby, self.primary):
            server.remove()
