"""Options that every command has."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from paceline.cli.server import Server, open_server

Switch = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option that is there or not."""

_SERVER = Group("Server and output", sort_key=99)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Which server, which key, which form of output."""

    server: Annotated[str | None, Parameter(group=_SERVER)] = None
    """Address of the server. Also PACELINE_SERVER; else host and port of the settings."""

    key_file: Annotated[Path | None, Parameter(group=_SERVER)] = None
    """File that holds the key. Also PACELINE_KEY, PACELINE_KEY_FILE; else admin.key in the data folder."""

    json: Annotated[bool, Parameter(group=_SERVER, negative="", show_default=False)] = False
    """Print JSON for programs instead of text for people."""

    @contextmanager
    def open(self) -> Iterator[Server]:
        """The server that is meant, closed afterwards."""
        server = open_server(self.server, self.key_file)
        try:
            yield server
        finally:
            server.close()


USUAL: Final = Common()
"""Nothing said: every command's default."""
