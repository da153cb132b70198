"""Circuits judged from outside: a model of its own, fed with what each call was answered, never with the product's.

What it demands: while a provider is down one call at a time goes, after its pause; a round of successes doubles the
calls; what fails meanwhile costs its message no attempt; and none of it takes longer than it may (rule 6).
"""

from typing import TYPE_CHECKING

from paceline.model.accounts import CircuitSpec
from paceline.model.ids import to_text
from paceline.model.messages import Settlement
from paceline.model.outcomes import Outcome, Temporary, Unknown
from paceline.model.states import State
from tests.simulation.provider import Call
from tests.simulation.tables import Kept
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.node import Node

RULE = CircuitSpec()
"""What the plans leave as it is."""
MOST_JITTER = 0.25
FULL = 64
"""Calls from which an account without a number of its own has started."""


class Model:
    """One account: a run of failures, or an open circuit with its trials."""

    __slots__ = ("allowed", "earliest", "latest", "least", "most", "run", "trials")

    def __init__(self) -> None:
        """All is well."""
        self.run = 0
        self.allowed = 0  # 0: closed
        self.trials: set[Call] = set()
        self.earliest = self.latest = 0  # of the next probe, true microseconds
        self.least = self.most = RULE.pause_ms  # a person's word may have shortened a pause


class CircuitCheck:
    """All accounts."""

    def __init__(self, world: World) -> None:
        """No provider was found down."""
        self.world = world
        self.models: dict[str, Model] = {}
        self.turned: dict[str, int] = {}  # when a circuit opened, or a trial last ended
        self.spared: dict[tuple[int, int], int] = {}  # message and hand-over -> attempts it must still have
        self.opened = 0
        self._orders = 0

    # -- what people do

    def unsettle(self) -> None:
        """Something is being changed: a probe may go at once, now or later."""
        self._orders += 1
        self._loosen()

    def force(self, accounts: set[str], known: set[str]) -> None:
        """It is changed. Accounts that were not there before begin anew."""
        self._orders = max(0, self._orders - 1)
        self._loosen()
        for account in set(self.models) - (accounts & known):
            del self.models[account]

    def _loosen(self) -> None:
        for model in self.models.values():
            model.earliest, model.least = 0, RULE.pause_ms

    def died(self) -> None:
        """The next process knows of no failure."""
        self.models.clear()
        self.spared.clear()
        self._orders = 0

    # -- what calls do

    def begins(self, call: Call) -> None:
        """One call at a time while it is open, and not before its pause is over."""
        model = self.models.get(call.account)
        if model is None or not model.allowed:
            return
        now = self.world.time.us
        if not self._orders:
            if len(model.trials) >= model.allowed:
                text = f"{call.account} has {len(model.trials)} calls under way and may have {model.allowed}"
                self.world.wrong(7, f"{text}: its provider was found down")
            if model.allowed == 1 and now < model.earliest:
                early = (model.earliest - now) / 1000
                self.world.wrong(7, f"{call.account} asks its provider {early:.1f} ms early whether it is up")
        model.trials.add(call)

    def answered(
        self, node: "Node", call: Call, kept: Kept, outcome: Outcome | None, most: int | None
    ) -> None:
        """The process heard; `most` calls the account may have under way."""
        up = outcome.up if isinstance(outcome, (Temporary, Unknown)) else None if outcome is None else True
        model = self.models.get(call.account)
        if up is False and model is None:
            model = self.models[call.account] = Model()
        if model is not None:
            self._move(node, model, call, up, most)
            if (
                up is False
                and model.allowed
                and (isinstance(outcome, Temporary) or kept.row.channel != "once")
            ):
                self.spared[kept.row.id, call.message.number] = kept.attempts

    def _move(self, node: "Node", model: Model, call: Call, up: bool | None, most: int | None) -> None:
        if not model.allowed:
            model.run = 0 if up else model.run + (up is False)
            if model.run == RULE.after:
                model.least = model.most = RULE.pause_ms
                self._open(node, model, call)
        elif call in model.trials:
            model.trials.discard(call)
            self.turned[call.account] = node.clock.true_us(node.clock.ceiling())
            if up is False:
                model.least, model.most = (min(2 * each, RULE.most_ms) for each in (model.least, model.most))
                self._open(node, model, call)
            elif up:
                model.allowed += 1
                if model.allowed > (FULL if most is None else most):
                    model.allowed = model.run = 0
            elif model.allowed == 1:
                self._open(node, model, call)

    def _open(self, node: "Node", model: Model, call: Call) -> None:
        self.opened += 1
        finished = node.clock.ceiling()
        model.allowed, model.run, model.trials = 1, 0, set()
        model.earliest = 0 if self._orders else node.clock.true_us(finished + model.least)
        model.latest = node.clock.true_us(finished + round(model.most * (1 + MOST_JITTER)))
        self.turned[call.account] = node.clock.true_us(finished)

    def settled(self, made: Settlement) -> None:
        """What failed while it was open is back in line, with all its attempts."""
        attempts = self.spared.pop((made.id, made.number), None)
        if attempts is not None and (made.attempts, made.state) != (attempts, State.PENDING):
            self.world.wrong(7, f"a provider that was down cost {to_text(made.id)} an attempt")

    def opens(self, account: str) -> int:
        """Since when, at the latest, the circuit lets the next call through."""
        model = self.models.get(account)
        turned = self.turned.get(account, 0)
        return max(turned, model.latest) if model is not None and model.allowed == 1 else turned
