"""Ask the server when messages will go and why they wait; then see when the witness receives them."""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import Server, Witness, drained, text_body, until

POOL = "shared"


@dataclass
class Told:
    """What was foretold for one message, and what came about. Moments are seconds since 1970."""

    text: str
    asked: float
    eta: float
    arrived: float

    @property
    def wait(self) -> float:
        return self.arrived - self.asked

    @property
    def error(self) -> float:
        return abs(self.eta - self.arrived)

    @property
    def share(self) -> float:
        return self.error / self.wait


@dataclass
class Figures:
    """What came out."""

    messages: int = 0
    gone_already: int = 0
    no_moment: list[str] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(each.share for each in self.told)

    def lines(self) -> list[str]:
        shares = sorted(each.share for each in self.told)
        errors = sorted(each.error for each in self.told)
        waits = [each.wait for each in self.told]
        tenth = len(shares) * 9 // 10
        bias = statistics.median(each.eta - each.arrived for each in self.told)
        return [
            f"messages                 {self.messages}, already gone when asked {self.gone_already}",
            f"waits                    {min(waits):.2f} to {max(waits):.1f} s, median {statistics.median(waits):.1f} s",
            f"error of the wait        median {self.median:.2%}, 9 of 10 below {shares[tenth]:.2%}, most {shares[-1]:.2%}",
            f"error in time            median {statistics.median(errors) * 1000:.0f} ms, most {errors[-1] * 1000:.0f} ms",
            f"error with its sign      median {bias * 1000:+.0f} ms",
            f"without a moment         {len(self.no_moment)}",
        ]


def moment(text: str) -> float:
    """A time of an answer in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def foretell(folder: Path, messages: int, accounts: Sequence[tuple[Sequence[str], int, bool]]) -> Figures:
    """Send so many over `accounts` of (limits, concurrency, in the pool), ask of each, and wait for all.

    A fifth of the messages of an account belongs to a campaign, so that turns are foretold as well.
    """
    figures = Figures(messages)
    with Witness(folder, "--latency", "0.005-0.02") as witness, Server(folder) as server:
        server.start()
        pinned: list[str | None] = []
        for index, (limits, concurrency, pooled) in enumerate(accounts):
            more = {"pool": POOL} if pooled else {}
            server.account(
                f"a{index}", witness, 1000 + index, limits=list(limits), concurrency=concurrency, **more
            )
            pinned.append(None if pooled else f"a{index}")
        # A server that has just started does not know yet how long a call takes.
        server.account("warm", witness, 999, pool="warm")
        server.send_all([text_body("warm", f"warm-{number}") for number in range(20)])
        drained(server, 30)
        ids = _send(server, messages, pinned)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda id_: _ask(server, id_), ids))
        witness.wait(within=600, taken=20 + messages)
        arrived = {text: found[0].wall / 1e9 for text, found in taken_by_text(witness.arrivals()).items()}
        server.stop()
    for index, (asked, answer) in enumerate(answers):
        text = f"m{index}"
        if answer["state"] != "pending":
            figures.gone_already += 1
        elif answer["eta"] is None:
            figures.no_moment.append(text)
        elif arrived[text] > asked:
            figures.told.append(Told(text, asked, moment(answer["eta"]), arrived[text]))
        else:
            figures.gone_already += 1  # it went while the answer was made
    return figures


def _send(server: Server, messages: int, pinned: Sequence[str | None]) -> list[str]:
    bodies = []
    for index in range(messages):
        account = pinned[index % len(pinned)]
        body = text_body(account or "", f"m{index}")
        if account is None:
            del body["account"]
            body["pool"] = POOL
        if index // len(pinned) % 5 == 4:
            body["campaign"] = "news"
        bodies.append(body)
    return server.send_all(bodies)


def _ask(server: Server, id_: str) -> tuple[float, dict[str, Any]]:
    with server.line() as line:
        asked = time.time()
        reply = line.ask("GET", f"/api/v1/messages/{id_}/why")
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json
    return asked, answer


def five_reasons(folder: Path) -> dict[str, dict[str, Any]]:
    """The answers to 'why' behind a limit, a flood wait, 14 others, a pause, and a moment set by the sender."""
    found: dict[str, dict[str, Any]] = {}
    with Witness(folder) as witness, Server(folder) as server:
        server.start()
        for number, (name, limits) in enumerate(
            [("limited", ["3/min"]), ("flooded", []), ("busy", ["1/10s"]), ("paused", []), ("plain", [])]
        ):
            server.account(name, witness, 1000 + number, limits=limits)
        server.api("POST", "/accounts/paused/pause")
        witness.behave("1001", flood_next=30)
        server.send_all([text_body("limited", f"l{n}") for n in range(3)] + [text_body("busy", "first")])
        with server.events("account-status") as happened:
            flooded = server.send(**text_body("flooded", "f"))
            next(happened)  # the flood wait is on disk
        found["flood-wait"] = server.why(flooded)
        witness.wait(taken=4)
        server.send_all([text_body("busy", f"b{n}") for n in range(14)])
        line = server.send(**text_body("busy", "b14"))
        limited = server.send(**text_body("limited", "l3"))
        until(lambda: not server.count("processing"), "the first ones have ended")
        found["limit"] = server.why(limited)
        found["line"] = server.why(line)
        found["paused"] = server.why(server.send(**text_body("paused", "p")))
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        found["scheduled"] = server.why(server.send(**text_body("plain", "s", scheduled_at=later)))
        server.stop()
    return found


def missing_reasons(found: dict[str, dict[str, Any]]) -> list[str]:
    """Which of the five does not say what it has to."""
    wrong = []
    for kind, answer in found.items():
        said = {reason["kind"]: reason for reason in answer["reasons"]}
        until_wanted = kind in ("limit", "flood-wait", "scheduled")
        if (
            kind not in said
            or (until_wanted and not said[kind]["until"])
            or (kind == "line" and said[kind]["ahead"] != 14)
            or (answer["eta"] is None) != (kind == "paused")
        ):
            wrong.append(kind)
    return wrong
