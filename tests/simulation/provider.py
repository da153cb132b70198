"""The simulated provider: what it does with each call, and a ledger of what arrived and when, in true time."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from paceline.channels.base import Channel, Outgoing, SendingAccount
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Moved,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from tests.simulation.world import World

MS = 1000


class Arrival(NamedTuple):
    """A call as the provider saw it. `taken`: it was carried out."""

    us: int
    message: str
    number: int
    account: str
    recipient: str
    taken: bool


class Fate(NamedTuple):
    """What becomes of a call: microseconds until it arrives and until it is answered; None for never."""

    arrives: int | None
    answers: int | None
    outcome: Outcome | Exception
    taken: bool


class Call:
    """A call under way."""

    __slots__ = ("account", "arrived", "channel", "fate", "future", "message", "over", "recipient", "started")

    def __init__(self, channel: "SimulatedChannel", message: Outgoing, account: str, started: int) -> None:
        self.channel, self.message, self.account, self.started = channel, message, account, started
        self.recipient = message.to[0]
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.arrived = False
        self.over = False
        self.fate = Fate(None, None, Accepted(), False)


class Watch:
    """Who wants to know of calls: the referee."""

    def began(self, call: Call) -> None:
        """The process calls the provider."""

    def arrived(self, call: Call, arrival: Arrival) -> None:
        """The provider sees it."""

    def ended(self, call: Call, outcome: Outcome | None) -> None:
        """The process has its answer, or none."""


class Moods:
    """How the provider answers; changed by faults. Weights of fates, and how long it takes."""

    def __init__(self) -> None:
        """A provider that takes everything."""
        self.latency = (5 * MS, 120 * MS)
        self.weights: dict[str, float] = {"accept": 1.0}

    def calm(self) -> None:
        """Take everything again."""
        self.__init__()  # type: ignore[misc]  # the same mood as a new one


class Provider:
    """Outside the process: it sees what arrives, whether or not the process lives to hear the answer."""

    def __init__(self, world: World, moods: Moods) -> None:
        self.world = world
        self.moods = moods
        self.watch = Watch()
        self.ledger: list[Arrival] = []
        self.calls: dict[int, Call] = {}
        self._chance = world.chance("provider")
        self.outages: dict[str, str] = {}  # accounts whose provider is down, and how that shows
        self._fault = world.chance("outage answers")
        self._number = 0

    async def serve(
        self, channel: "SimulatedChannel", message: Outgoing, account: SendingAccount, deadline: float
    ) -> Outcome:
        """One call from beginning to end."""
        world = self.world
        call = Call(channel, message, f"{account.tenant}/{account.name}", world.time.us)
        self._number += 1
        number = self._number
        self.calls[number] = call
        call.fate = fate = draw(self._chance, self.moods, round(deadline * 1e6), call.recipient)
        kind = self.outages.get(call.account)
        if kind is not None:
            call.fate = fate = down(self._fault, kind, fate, round(deadline * 1e6))
        world.note(
            "call", f"{message.id} #{message.number} by {call.account} to {call.recipient}: {_show(fate)}"
        )
        self.watch.began(call)
        if fate.arrives is not None:
            world.later(fate.arrives, lambda: self._arrive(call))
        if fate.answers is not None:
            world.later(fate.answers, lambda: self._answer(call))
        outcome: Outcome | None = None
        try:
            outcome = await call.future
            return outcome
        except asyncio.CancelledError:
            raise
        except Exception:
            outcome = Unknown("the channel failed", "channel-bug")
            raise
        finally:
            if not call.over:
                call.over = True
                del self.calls[number]
                self.watch.ended(call, outcome)

    def _arrive(self, call: Call) -> None:
        if call.over or call.arrived:
            return
        call.arrived = True
        arrival = Arrival(
            self.world.time.us,
            call.message.id,
            call.message.number,
            call.account,
            call.recipient,
            call.fate.taken,
        )
        self.ledger.append(arrival)
        self.world.note("arrives", f"{arrival.message} #{arrival.number} taken={arrival.taken}")
        self.watch.arrived(call, arrival)

    def _answer(self, call: Call) -> None:
        if call.over or call.future.done():
            return
        if isinstance(call.fate.outcome, Exception):
            call.future.set_exception(call.fate.outcome)
        else:
            call.future.set_result(call.fate.outcome)

    def orphan(self) -> None:
        """The process died: what it had sent may still arrive now, nobody hears what is answered."""
        for call in self.calls.values():
            if not call.arrived and call.fate.arrives is not None and self._chance.random() < 0.5:
                self._arrive(call)
            call.over = True
        self.calls.clear()


class SimulatedChannel(Channel):
    """A channel of one process; both kinds differ in whether repeating is safe."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.send`."""
        return await self._provider.serve(self, message, account, deadline)


class Once(SimulatedChannel):
    """Sending twice sends two."""

    name = "once"


class Safe(SimulatedChannel):
    """The receiver drops repeats by the message's id."""

    name = "safe"
    repeat_is_safe = True


class Hook(SimulatedChannel):
    """Where the messages go that tell how others ended; it needs no account."""

    name = "webhook"
    repeat_is_safe = True
    needs_account = False
    bodies = frozenset({"payload"})
    body_required = frozenset({"payload"})
    default_queue = "callback"


def draw(chance: Random, moods: Moods, deadline: int, recipient: str) -> Fate:
    """What becomes of the next call."""
    kind = chance.choices(list(moods.weights), list(moods.weights.values()))[0]
    takes = chance.randrange(*moods.latency)
    arrives = chance.randrange(1, takes)
    return _FATES[kind](chance, arrives, takes, deadline, recipient)


def down(chance: Random, kind: str, fate: Fate, deadline: int) -> Fate:
    """What becomes of a call whose provider is down, `fate` if it were not."""
    if kind == "flapping" and chance.random() < 0.3:
        return fate
    if kind == "silent":
        arrives = chance.choice([chance.randrange(1, deadline), None])
        return Fate(
            arrives, deadline, Unknown("no answer in time", "time-out", up=False), chance.random() < 0.5
        )
    takes = chance.randrange(1, 60 * MS)
    if kind == "errors":
        arrives = chance.randrange(takes)
        return Fate(arrives, takes, Temporary("http-503", "out of order", up=False), False)
    return Fate(None, takes, Temporary("connect", "refused", up=False), False)


def _accept(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    return Fate(arrives, takes, Accepted("ref"), True)


def _refuse(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    return Fate(arrives, takes, Permanent("550", "no such recipient"), False)


def _later(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    wait = chance.choice([None, None, 500, 20_000])
    return Fate(chance.choice([arrives, None]), takes, Temporary("451", "try again", wait), False)


def _flood(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    wait = chance.choice([None, 0, 700, 3_000, 12_000, 45_000])
    scope = chance.choices(["account", "recipient", "group"], [4, 2, 1])[0]
    return Fate(arrives, takes, RateLimited(wait, scope, "429", "slow down"), False)  # type: ignore[arg-type]  # one of its words


def _lose(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    return Fate(arrives, takes, Unknown("the link was cut"), True)


def _hang(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    """No answer: the channel gives up at its deadline, or does not even do that."""
    arrives = chance.randrange(1, deadline)
    return Fate(
        chance.choice([arrives, None]),
        chance.choice([deadline, None]),
        Unknown("no answer in time", "time-out"),
        True,
    )


def _stop(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    return Fate(arrives, takes, AccountStopped("401", "bad credentials"), False)


def _move(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    return Fate(arrives, takes, Moved(recipient + "+", "301", "moved"), False)


def _break(chance: Random, arrives: int, takes: int, deadline: int, recipient: str) -> Fate:
    return Fate(chance.choice([arrives, None]), takes, RuntimeError("a bug of the channel"), True)


_FATES: dict[str, Callable[[Random, int, int, int, str], Fate]] = {
    "accept": _accept, "refuse": _refuse, "later": _later, "flood": _flood, "lose": _lose, "hang": _hang,
    "stop": _stop, "move": _move, "break": _break,
}  # fmt: skip


def _show(fate: Fate) -> str:
    name = type(fate.outcome).__name__
    parts = [name]
    if isinstance(fate.outcome, RateLimited):
        parts.append(f"{fate.outcome.scope} {fate.outcome.wait_ms}")
    parts.append("never arrives" if fate.arrives is None else f"arrives in {fate.arrives / 1000:.1f} ms")
    parts.append("no answer" if fate.answers is None else f"answered in {fate.answers / 1000:.1f} ms")
    return ", ".join(parts)
