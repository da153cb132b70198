"""Restart the server again and again while its accounts are at their limits; the receiver's own times judge."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import (
    Arrival,
    Limit,
    by_sender,
    exceeded,
    ideal_count,
    taken_by_text,
    worst_count,
)
from tests.scenarios.server import Server, Witness, pause_of, text_body


@dataclass
class Figures:
    """What came out. `plans` are the limits of the accounts, which have them in turn."""

    accounts: int
    plans: Sequence[Sequence[Limit]]
    seconds: float = 0.0
    stopped: int = 0
    killed: int = 0
    sent: int = 0
    permitted: int = 0
    exceeded: int = 0
    twice: int = 0
    uncertain: int = 0
    worst: dict[Limit, int] = field(default_factory=dict)
    uses: list[float] = field(default_factory=list)
    downs: list[float] = field(default_factory=list)

    @property
    def use(self) -> float:
        """What was sent of what accounts without any fault could have sent."""
        return self.sent / self.permitted if self.permitted else 0.0

    @property
    def ratio(self) -> float:
        """The fullest window of all, as a share of its limit."""
        return max(count / limit[0] for limit, count in self.worst.items())

    def lines(self) -> list[str]:
        worst = ", ".join(
            f"{count} in {limit[1]:g} s (limit {limit[0]})" for limit, count in self.worst.items()
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
    between: tuple[float, float] = (1.0, 3.0), others: Sequence[Sequence[Limit]] = (), broken: str = "",
) -> Figures:  # fmt: skip
    """Run for so long with a restart every so often; half of them are kills.

    Accounts have `limits`, or in turn those and each of the `others`.
    """
    plans = [limits, *others]
    figures = Figures(accounts, plans)
    with Witness(folder, "--latency", "0.005-0.02") as witness, Server(folder, broken=broken) as server:
        server.start()
        _fill(server, witness, figures, seconds)
        _restart_often(server, figures, seconds, random.Random(seed), between)
        figures.uncertain = server.count("uncertain")
        server.stop()
        arrivals = witness.arrivals()
    _judge(figures, arrivals)
    return figures


def _fill(server: Server, witness: Witness, figures: Figures, seconds: float) -> None:
    """Set the accounts up, and give each more than it can send."""
    bodies: list[list[dict[str, Any]]] = []
    for index in range(figures.accounts):
        limits = figures.plans[index % len(figures.plans)]
        texts = [f"{n}/{s:g}s" for n, s in limits]
        server.account(f"a{index}", witness, 1000 + index, limits=texts, concurrency=1 + index % 4)
        each = ideal_count(limits, seconds) + 50
        bodies.append([text_body(f"a{index}", f"{index}-{number}") for number in range(each)])
    server.send_all([body for row in zip_longest(*bodies) for body in row if body is not None])


def _restart_often(
    server: Server, figures: Figures, seconds: float, chance: random.Random, between: tuple[float, float]
) -> None:
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


def _judge(figures: Figures, arrivals: Sequence[Arrival]) -> None:
    senders = by_sender(arrivals)
    figures.twice = sum(len(found) > 1 for found in taken_by_text(arrivals).values())
    end = max(moments[-1] for moments in senders.values())
    for number, limits in enumerate(figures.plans):
        own = [
            moments for name, moments in senders.items() if (int(name) - 1000) % len(figures.plans) == number
        ]
        for limit in limits:
            worst = max((worst_count(moments, limit[1]) for moments in own), default=0)
            figures.worst[limit] = max(worst, figures.worst.get(limit, 0))
            figures.exceeded += sum(exceeded(moments, limit) for moments in own)
        sent = sum(map(len, own))
        permitted = sum(ideal_count(limits, (end - moments[0]) / 1e9) for moments in own)
        figures.sent += sent
        figures.permitted += permitted
        figures.uses.append(sent / permitted if permitted else 0.0)
