"""The real server, whole or with a break, and under another program when one has to watch it."""

import sys
from pathlib import Path

from tests.scenarios.server import Process, Server, clean_environment


class Variant(Server):
    """As `Server`; `breaking` names what `bench.faults.broken` changes in it first, '' for nothing."""

    def __init__(
        self,
        folder: Path,
        breaking: str = "",
        *,
        data: Path | None = None,
        prefix: tuple[str, ...] = (),
        settings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder, data, prefix)
        self.breaking = breaking
        self.settings = tuple(word for setting in settings for word in ("--set", setting))

    def spawn(self, *more: str) -> Process:
        module = ["bench.faults.broken", self.breaking, "--"] if self.breaking else ["paceline.cli.main"]
        command = [*self.prefix, sys.executable, "-m", *module, "up", "--host", "127.0.0.1", "--port", "0"]
        given = ["--data", str(self.data), *self.settings, *more]
        environment = clean_environment() | {"PACELINE_OUTGOING_ALLOW": "127.0.0.0/8"}
        self.process = Process([*command, *given], self.log, environment, self.folder)
        return self.process
