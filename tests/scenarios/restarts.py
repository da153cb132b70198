"""Restart the server again and again while its accounts are at their limits; the receiver's own times judge."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.ledger import Limit, by_sender, exceeded, ideal_count, taken_by_text, worst_count
from tests.scenarios.server import Server, Witness, pause_of, text_body


@dataclass
class Figures:
    """What came out."""

    accounts: int
    limits: Sequence[Limit]
    seconds: float = 0.0
    stopped: int = 0
    killed: int = 0
    sent: int = 0
    permitted: int = 0
    exceeded: int = 0
    twice: int = 0
    uncertain: int = 0
    worst: dict[Limit, int] = field(default_factory=dict)
    downs: list[float] = field(default_factory=list)

    @property
    def use(self) -> float:
        """What was sent of what accounts without any fault could have sent."""
        return self.sent / self.permitted if self.permitted else 0.0

    def lines(self) -> list[str]:
        worst = ", ".join(
            f"{self.worst[limit]} in {limit[1]:g} s (limit {limit[0]})" for limit in self.limits
        )
        return [
            f"restarts            {self.stopped} by SIGTERM, {self.killed} by kill -9, in {self.seconds:.0f} s",
            f"away                {sum(self.downs):.0f} s in all, at most {max(self.downs, default=0):.2f} s at once",
            f"accounts            {self.accounts}",
            f"worst window        {worst}",
            f"arrived too early   {self.exceeded}",
            f"use of the limits   {self.use:.1%} ({self.sent} of {self.permitted})",
            f"sent twice          {self.twice}",
            f"uncertain           {self.uncertain}",
        ]


def restarts(
    folder: Path, seconds: float, limits: Sequence[Limit], accounts: int, seed: int,
    between: tuple[float, float] = (1.0, 3.0),
) -> Figures:  # fmt: skip
    """Run for so long with a restart every so often; half of them are kills."""
    chance, figures = random.Random(seed), Figures(accounts, limits)
    texts = [f"{n}/{s:g}s" for n, s in limits]
    each = ideal_count(limits, seconds) + 50
    with (
        Witness(folder, "--latency", "0.005-0.02", limits=tuple(limits)) as witness,
        Server(folder) as server,
    ):
        server.start()
        for index in range(accounts):
            server.account(f"a{index}", witness, 1000 + index, limits=texts, concurrency=1 + index % 4)
        server.send_all(
            [
                text_body(f"a{index}", f"{index}-{number}")
                for number in range(each)
                for index in range(accounts)
            ]
        )
        begun = time.monotonic()
        while (left := begun + seconds - time.monotonic()) > between[0]:
            pause_of(chance, between[0], min(between[1], left))
            down = time.monotonic()
            if figures.stopped <= figures.killed:
                assert server.stop() == 0
                figures.stopped += 1
            else:
                server.kill()
                figures.killed += 1
            server.start()
            figures.downs.append(time.monotonic() - down)
        figures.seconds = time.monotonic() - begun
        figures.uncertain = server.count("uncertain")
        server.stop()
        arrivals = witness.arrivals()
    senders = by_sender(arrivals)
    figures.twice = sum(len(found) > 1 for found in taken_by_text(arrivals).values())
    figures.worst = {limit: max(worst_count(m, limit[1]) for m in senders.values()) for limit in limits}
    figures.exceeded = sum(exceeded(m, limit) for m in senders.values() for limit in limits)
    end = max(moments[-1] for moments in senders.values())
    for moments in senders.values():
        figures.sent += len(moments)
        figures.permitted += ideal_count(limits, (end - moments[0]) / 1e9)
    return figures
