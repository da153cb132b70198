"""Every node of a store is replaced by one of a later version with a newer schema, one after the other, while all send.

What is judged is the same as in a storm of nodes, and how long a lane paused: from the moment at which a message was taken
in to its arrival at the witness.
"""

import itertools
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from paceline.model.ids import from_text, moment_of
from tests.scenarios.ledger import Limit, taken_by_text
from tests.scenarios.node_figures import Figures
from tests.scenarios.node_storm import Node, NodeStorm
from tests.scenarios.server import Process, clean_environment, drained

_FIRST = """
from functools import partial
from paceline.cli.main import main
from paceline.stores import postgres
from tests.scenarios.newer import KNOWN
postgres.PostgresStore = partial(postgres.PostgresStore, steps=KNOWN[:1])
main()
"""


class Replaced(Node):
    """A node that can be started as a later version."""

    newer = False

    def spawn(self, *more: str) -> Process:
        if not self.newer:
            return super().spawn(*more)
        command = [sys.executable, "-m", "tests.scenarios.newer", "up", "--host", "127.0.0.1", "--port", "0"]
        environment = clean_environment() | {"PACELINE_OUTGOING_ALLOW": "127.0.0.0/8"}
        self.process = Process(
            [*command, "--data", str(self.data), *more], self.log, environment, self.folder
        )
        return self.process


class Rolling(NodeStorm):
    """The run. No limit is in the way: what waits does so for its node."""

    limit: Limit = (1000, 1.0)
    kind = Replaced

    def __init__(self, folder: Path, store: str, seed: int = 1, rest: float = 3.0) -> None:
        super().__init__(folder, store, seed, pace=0.06)
        self.rest = rest
        self.delays: list[float] = []
        self.gap = 0.0
        self.steps_taken = 0
        self.refused = ""

    def replace_all(self, count: int = 2) -> Figures:
        """Stop and start each node; the figures."""
        with ExitStack() as stack:
            self._come_together(stack, count)
            self._sending(lambda: self._replace(count))
            drained(self.nodes[0], 60)
            self._judge()
            self._measure()
            self.refused = self._first_version()
        return self.figures

    def _replace(self, count: int) -> None:
        time.sleep(self.rest)
        for node in self.nodes:
            assert isinstance(node, Replaced)
            node.stopped = True  # for the clients
            assert node.stop() == 0
            node.newer = True
            node.begin()
            node.stopped = False
            self._shared(count)
            time.sleep(self.rest)

    def _measure(self) -> None:
        arrivals = self.witness.arrivals()
        moments = sorted(each.monotonic for each in arrivals)
        self.gap = max((b - a for a, b in itertools.pairwise(moments)), default=0) / 1e9
        taken = taken_by_text(arrivals)
        for client in self.clients:
            for text, id_ in client.acknowledged.items():
                number = from_text(id_)
                if text in taken and number is not None:
                    self.delays.append(taken[text][0].wall / 1e9 - moment_of(number) / 1000)
        logs = [node.log.read_text("utf-8", "replace") for node in self.nodes]
        self.steps_taken = sum(log.count("schema brought up to date") for log in logs)

    def _first_version(self) -> str:
        """What a program says that knows the first step alone, with which the newest schema does not work any more."""
        command = [sys.executable, "-c", _FIRST, "up", "--port", "0", "--data", str(self.folder / "first")]
        done = subprocess.run(
            [*command, "--store", self.store], env=clean_environment(), capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        return done.stderr if done.returncode == 1 else f"exit code {done.returncode}"

    def lines(self) -> list[str]:
        delays = sorted(self.delays) or [0.0]
        return [
            *self.figures.lines(),
            f"longest gap of arrivals    {self.gap:.2f} s",
            f"from taken in to arrived   median {statistics.median(delays):.3f} s, longest {delays[-1]:.2f} s",
        ]
