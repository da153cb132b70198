"""A PgBouncer of our own before a PostgreSQL server, for tests of what is said to whoever goes through it. Not tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from tests.contracts.stores.postgres_server import missing

Mode = Literal["transaction", "session"]
_PROGRAMS = ("pgbouncer", "/usr/sbin/pgbouncer")


class Pooler:
    """Shares connections to the server of `url`; `url` of its own leads through it."""

    def __init__(self, url: str, mode: Mode, *, strict: bool) -> None:
        """Start it. A strict one refuses settings that a connection asks for and it does not know, as it comes."""
        program = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
        if program is None:
            missing("no PgBouncer is installed here")
            raise AssertionError
        parts = urlsplit(url)
        self.folder = Path(tempfile.mkdtemp(prefix="paceline-pooler-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = self.folder / "settings.ini"
        settings.write_text(_settings(parts.hostname, parts.port, self.port, mode, strict))
        self._process = subprocess.Popen([program, str(settings)], cwd=self.folder, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._who())  # fmt: skip
        self.url = urlunsplit((parts.scheme, f"postgres@127.0.0.1:{self.port}", parts.path, parts.query, ""))
        self._listening()

    def remove(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        shutil.rmtree(self.folder)

    def _who(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        import pwd

        entry = pwd.getpwnam("nobody")  # it refuses to run as root
        os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _listening(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            assert self._process.poll() is None and time.monotonic() < deadline, "the pooler does not start"
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.02)


def _settings(host: str | None, behind: int | None, port: int, mode: Mode, strict: bool) -> str:
    ignored = "extra_float_digits" if strict else (
        "extra_float_digits,search_path,jit,tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,"
        "enable_seqscan,enable_bitmapscan,enable_hashjoin,enable_mergejoin,enable_material,plan_cache_mode,"
        "idle_in_transaction_session_timeout,default_transaction_read_only"
    )  # fmt: skip
    return (
        f"[databases]\n* = host={host} port={behind} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        f"pool_mode = {mode}\nignore_startup_parameters = {ignored}\n"
    )
