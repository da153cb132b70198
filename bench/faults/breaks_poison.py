"""What is taken out of the process to see that experiment E17 would notice."""

from collections.abc import Callable
from typing import Any

from paceline.engine import recovery, suspects


def _no_isolation() -> None:
    """Suspects are sent again all at once, however often they met a crash."""
    suspects.Suspects.begin = lambda _self, _ids: None


def _no_quarantine() -> None:
    """No number of crashes is too many."""
    recovery.MOST_CRASHES = 1 << 30


def _crashes_count_as_attempts() -> None:
    """Whoever was under way loses an attempt, whether it was to blame or not."""
    made = recovery._settlement

    def settlement(message: Any, *rest: Any) -> Any:
        found = made(message, *rest)
        found.attempts = message.attempts + 1
        return found

    recovery._settlement = settlement


def _forgotten_suspects() -> None:
    """Who waits for its turn alone is not known any more after the next start."""

    async def nobody(_store: Any) -> list[int]:
        return []

    recovery.known_suspects = nobody


BREAKS: dict[str, Callable[[], None]] = {
    "poison-no-isolation": _no_isolation,
    "poison-no-quarantine": _no_quarantine,
    "poison-crash-is-attempt": _crashes_count_as_attempts,
    "poison-forgotten-suspects": _forgotten_suspects,
}
