"""Providers that ask to wait, in every way they do it and some that make no sense, and a restart meanwhile.

Each account speaks one dialect and hears one kind of answer. What a wait is worth is known beforehand: what was
asked for, or the longest wait of the settings where nothing sensible was, or too much.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.scenarios.foretold import moment
from tests.scenarios.ledger import Arrival, taken_by_text
from tests.scenarios.server import Server, Witness, drained, text_body, until

LONGEST_S = 5
"""The setting `longest_wait`, so that what is cut, or has no figure, can be waited for."""
ASKED_S = 3
LOOK_S = 3.0
"""Accounts have to say that they wait within this time of the answers."""
YEARS = str(20 * 365 * 86_400)


@dataclass(frozen=True)
class Kind:
    """What an answer says, and how long that is waited, from the moment of the answer."""

    name: str
    says: Callable[[float], str]
    wait: float
    dialects: str = "bot hook"
    cut: bool = False


KINDS = (
    Kind("seconds", lambda _now: str(ASKED_S), ASKED_S),
    Kind("date", lambda now: formatdate(now + ASKED_S + 1, usegmt=True), ASKED_S, "hook"),
    Kind("missing", lambda _now: "", LONGEST_S),
    Kind("negative", lambda _now: "-5", LONGEST_S),
    Kind("years", lambda _now: YEARS, LONGEST_S, cut=True),
    Kind("nonsense", lambda _now: "in a while", LONGEST_S),
    Kind("beyond all numbers", lambda _now: "9" * 17, LONGEST_S, "hook", cut=True),
)


@dataclass
class Sender:
    """One account with its dialect and kind of answer; `floods` are the answers it got, `dates` what they named."""

    name: str
    dialect: str
    kind: Kind
    number: int
    dates: list[float] = field(default_factory=list)

    @property
    def known_as(self) -> str:
        return str(self.number) if self.dialect == "bot" else self.name


@dataclass
class Figures:
    """What came out."""

    floods: int = 0
    restarts: int = 0
    inside: list[str] = field(default_factory=list)
    stalls: dict[str, float] = field(default_factory=dict)
    twice: int = 0
    lost: int = 0
    attempts: list[str] = field(default_factory=list)
    not_shown: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        stalls = {kind: round(most, 2) for kind, most in self.stalls.items()}
        return [
            f"answers that asked to wait  {self.floods}, restarts meanwhile {self.restarts}",
            f"sent inside a wait          {len(self.inside)}",
            f"stall beyond it, by kind    {stalls}",
            f"sent twice, lost            {self.twice}, {self.lost}",
            f"attempts counted for it     {len(self.attempts)}",
            f"cut and not shown           {self.not_shown}",
        ]


class Floods:
    """The run."""

    def __init__(self, folder: Path, accounts: int, broken: str = "") -> None:
        """`accounts` of each dialect and kind."""
        self.folder, self.broken = folder, broken
        self.figures = Figures()
        self.ids: dict[str, str] = {}
        pairs = [(dialect, kind) for kind in KINDS for dialect in kind.dialects.split()]
        self.senders = [
            Sender(f"{dialect}{number}-{index}", dialect, kind, 1000 + 100 * index + number)
            for number in range(accounts)
            for index, (dialect, kind) in enumerate(pairs)
        ]
        self.server: Server
        self.witness: Witness

    def run(self, rounds: int) -> Figures:
        with Witness(self.folder) as self.witness, Server(self.folder, broken=self.broken) as self.server:
            self._start()
            for sender in self.senders:
                self._account(sender)
            for turn in range(rounds):
                self._round(turn)
            drained(self.server, 90)
            self._judge()
            self.server.stop()
        return self.figures

    def _start(self) -> None:
        self.server.start("--set", f"longest_wait={LONGEST_S}")

    def _account(self, sender: Sender) -> None:
        if sender.dialect == "bot":
            self.server.account(sender.name, self.witness, sender.number)
            return
        url = f"http://127.0.0.1:{self.witness.port}/hook/{sender.name}"
        self.server.api("PUT", f"/accounts/{sender.name}", {"channel": "webhook", "settings": {"url": url}})

    def _round(self, turn: int) -> None:
        now = time.time()
        for sender in self.senders:
            # The witness itself would take the next one a little early: what counts is what it said.
            says = sender.kind.says(now)
            self.witness.behave(sender.known_as, flood_next=0.1, says=says)
            if sender.kind.name == "date":
                sender.dates.append(float(int(now + ASKED_S + 1)))
        bodies = [
            self._body(sender, f"{turn}/{sender.name}/{n}") for sender in self.senders for n in range(2)
        ]
        ids = self.server.send_all(bodies)
        self.ids |= {
            f"{turn}/{s.name}/{n}": ids[2 * i + n] for i, s in enumerate(self.senders) for n in range(2)
        }
        self.figures.floods += len(self.senders)
        asked = self.figures.floods
        until(lambda: self.witness.report()["answers"].get("flood", 0) >= asked, "each was asked to wait")
        self._look()
        # A wait that is not on disk yet is lost with the process, and its message is uncertain: not what is tried here.
        until(lambda: not self.server.count("processing"), "what was answered is on disk")
        if turn % 2:
            self.server.stop()
        else:
            self.server.kill()
        self._start()
        self.figures.restarts += 1
        self.witness.wait(within=20 + LONGEST_S, taken=2 * (turn + 1) * len(self.senders))

    def _body(self, sender: Sender, text: str) -> dict[str, object]:
        if sender.dialect == "bot":
            return text_body(sender.name, text)
        return {"channel": "webhook", "account": sender.name, "payload": {"text": text}}

    def _look(self) -> None:
        """An account says that it waits, until when, and when it was asked for more."""
        deadline = time.monotonic() + LOOK_S
        found = self._accounts()
        while time.monotonic() < deadline and any(found[s.name]["state"] != "flooded" for s in self.senders):
            found = self._accounts()
        for sender in self.senders:
            shown = found[sender.name]
            left = moment(shown["until"]) - time.time() if shown["until"] else -1.0
            told = " ".join(reason["text"] for reason in shown["reasons"])
            if not 0 < left <= LONGEST_S or ("longest_wait" in told) != sender.kind.cut:
                self.figures.not_shown.append(f"{sender.name} {sender.kind.name}: {left:.1f} s, {told}")

    def _accounts(self) -> dict[str, Any]:
        """All at once: asked one by one, the first wait would be over before the last one is seen."""
        return {each["name"]: each for each in self.server.api("GET", "/accounts?limit=500")["items"]}

    def _judge(self) -> None:
        figures, arrivals = self.figures, self.witness.arrivals()
        taken = taken_by_text(arrivals)
        figures.twice = sum(len(found) > 1 for found in taken.values())
        figures.lost = sum(text not in taken for text in self.ids)
        for text, id_ in self.ids.items():
            if (attempts := self.server.get(id_)["attempts"]) != 1:
                figures.attempts.append(f"{text}: {attempts}")
        for sender in self.senders:
            self._judge_sender(sender, [a for a in arrivals if a.sender == sender.known_as])

    def _judge_sender(self, sender: Sender, arrivals: Sequence[Arrival]) -> None:
        for arrival, following in pairwise(arrivals):
            if arrival.answer != "flood":
                continue
            named = [date for date in sender.dates if date > arrival.wall / 1e9]
            asked = named[0] - arrival.wall / 1e9 if named else sender.kind.wait
            late = (following.monotonic - arrival.monotonic) / 1e9 - asked
            # Two clocks of two processes are read a little apart where a date is named.
            if late < (-0.005 if sender.dates else 0):
                self.figures.inside.append(f"{sender.name} {sender.kind.name}: {-late:.3f} s early")
            name = sender.kind.name
            self.figures.stalls[name] = max(late, self.figures.stalls.get(name, 0.0))


def floods(folder: Path, accounts: int, rounds: int, broken: str = "") -> Figures:
    """Run it: so many accounts of each kind, so many waits of each, a restart in every one."""
    return Floods(folder, accounts, broken).run(rounds)
