"""A circuit for each account: while its provider is down nothing goes but one message at a time, to find out.

    closed -- so many failures in a row --> open -- a probe succeeds --> slow start -- every place was used --> closed
                                            ^  | a probe fails: a longer pause        |
                                            +--+--------------- a failure ------------+

An account without failures has no circuit at all. Only calls that began since it opened move an open one: how an
older call ends was decided before.
"""

from collections.abc import Callable

from paceline.model.accounts import CircuitSpec
from paceline.model.outcomes import Outcome, Temporary, Unknown
from paceline.pacing.windows import NEVER

JITTER = 0.25
"""Share of a pause that chance adds, so that accounts which lost their provider together do not knock together."""
FULL = 64
"""Calls under way from which the slow start is over where the account allows any number."""


class Circuit:
    """One run of failures, or one opening with the slow start that follows it. Times are milliseconds.

    Attributes:
        failures: in a row, while it is closed.
        code: of the last failure.
        pause: how long it rests before a probe, without what chance adds.
        until: nothing goes before; 0 while it is closed.
        allowed: calls under way at most, of those that began since it opened; 1 for a probe, 0 while it is closed.
        flying: how many of those there are.
    """

    __slots__ = ("allowed", "code", "failures", "flying", "pause", "until")

    def __init__(self, failures: int, code: str) -> None:
        """A closed one."""
        self.failures = failures
        self.code = code
        self.pause = self.until = self.allowed = self.flying = 0

    @property
    def is_open(self) -> bool:
        """Open, or in its slow start: calls that began before it opened do not count."""
        return self.allowed > 0

    @property
    def is_probing(self) -> bool:
        """Open: no call has found the provider up yet."""
        return self.allowed == 1

    def opens(self) -> int:
        """The moment from which one more call may begin: 0 while it is closed, NEVER for the end of a call."""
        return NEVER if self.flying >= self.allowed > 0 else self.until

    def begun(self) -> "Circuit | None":
        """A call is decided; answers the circuit whose trial it is, None while it is closed."""
        if not self.allowed:
            return None
        self.flying += 1
        return self

    def over(self) -> None:
        """A trial ended, or did not begin after all."""
        self.flying -= 1

    def hasten(self, now: int, rule: CircuitSpec) -> None:
        """A person changed something, or asked: probe at once, unless a probe is under way, and begin short pauses."""
        if self.is_probing:
            self.pause = rule.pause_ms
            self.until = min(self.until, now)


def is_up(outcome: Outcome) -> bool | None:
    """Whether an outcome shows its provider up (True) or down (False); None where it tells nothing of it."""
    return outcome.up if isinstance(outcome, (Temporary, Unknown)) else True


def ended(
    known: Circuit | None, outcome: Outcome, at: int, rule: CircuitSpec, most: int | None,
    chance: Callable[[], float], *, trial: bool,
) -> Circuit | None:  # fmt: skip
    """The circuit of an account after a call that ended at `at`; None when all is well.

    Args:
        known: the circuit before.
        outcome: how the call ended.
        at: the moment.
        rule: the account's settings.
        most: calls that the account may have under way; None for any number.
        chance: numbers evenly spread over 0..1.
        trial: the call began since `known` opened.
    """
    up = is_up(outcome)
    if known is None or not known.is_open:
        return _closed(known, up, _code(outcome), at, rule, chance)
    if not trial:
        return known
    if up is False:
        return _opened(_code(outcome), min(2 * known.pause, rule.most_ms), at, chance)
    if up is None:
        # It found out nothing: the next probe has to wait as this one did.
        return _opened(known.code, known.pause, at, chance) if known.is_probing else known
    known.allowed += 1
    return None if known.allowed > (FULL if most is None else most) else known


def _closed(
    known: Circuit | None, up: bool | None, code: str, at: int, rule: CircuitSpec, chance: Callable[[], float]
) -> Circuit | None:
    if up is None:
        return known
    if up:
        return None
    failures = 1 if known is None else known.failures + 1
    if failures < rule.after:
        return Circuit(failures, code)
    return _opened(code, rule.pause_ms, at, chance)


def _opened(code: str, pause: int, at: int, chance: Callable[[], float]) -> Circuit:
    """A new one, so that trials of an earlier opening are nobody's any more."""
    made = Circuit(0, code)
    made.pause, made.allowed = pause, 1
    made.until = at + pause + int(pause * JITTER * chance())
    return made


def _code(outcome: Outcome) -> str:
    code: str = getattr(outcome, "code", "")
    return "no-answer" if code == Unknown("").code else code
