"""Failpoints: the server kills itself at a named point, so that rare moments are met on purpose.

`die-at=POINT:N` dies when the point is passed for the N-th time after the start was complete; the point
`recovering` lies within the start itself.
"""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from paceline.engine import service
from paceline.engine.attempts import Attempts
from paceline.engine.service import Service
from paceline.model.outcomes import Accepted
from paceline.stores import postgres_writer
from paceline.stores.calls import Kind
from paceline.stores.sqlite_writer import Writer

COMMITS = {
    "before-intake": ("add", False),
    "after-intake": ("add", True),
    "before-hand-over": ("hand_over", False),
    "after-hand-over": ("hand_over", True),
    "before-outcome": ("settle", False),
    "after-outcome": ("settle", True),
}
"""The kind of write that a commit holds, and whether to die once it is on disk."""
SENDING = (
    "before-hand-over",
    "after-hand-over",
    "before-call",
    "accepted",
    "before-outcome",
    "after-outcome",
)
INTAKE = ("before-intake", "after-intake")


def _countdown(count: int, *, armed: bool) -> Callable[[], None]:
    """Dies the `count`-th time it is called after the start."""
    state = {"armed": armed, "left": count}

    async def start(self: Service, *given: Any) -> bool:
        first = await begin(self, *given)
        state["armed"] = True
        return first

    begin = Service.start
    Service.start = start  # type: ignore[method-assign] # that is what a break is

    def passed() -> None:
        state["left"] -= bool(state["armed"])
        if state["left"] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return passed


def die_at(where: str) -> None:
    """Die by SIGKILL at POINT:N."""
    point, _, count = where.partition(":")
    passed = _countdown(int(count or 1), armed=point == "recovering")
    if point in COMMITS:
        _at_commit(*COMMITS[point], passed)
    elif point in ("before-call", "accepted"):
        _at_call(point, passed)
    elif point == "recovering":
        _at_recovery(passed)
    else:
        raise SystemExit(f"there is no failpoint '{point}'")


def _at_commit(kind: str, after: bool, passed: Callable[[], None]) -> None:
    commit = Writer._commit

    def patched(self: Writer, works: Sequence[Any], *rest: Any) -> None:
        met = any(work.kind == kind for work in works)
        if met and not after:
            passed()
        commit(self, works, *rest)
        if met and after:
            passed()

    Writer._commit = patched  # type: ignore[method-assign] # that is what a break is
    _at_commit_to_postgres(Kind[kind.upper()], after, passed)


def _at_commit_to_postgres(kind: Kind, after: bool, passed: Callable[[], None]) -> None:
    run, commit = postgres_writer.Writer._run, postgres_writer.Writer._commit
    met = [False]

    async def patched_run(self: Any, calls: Sequence[Any], *rest: Any) -> Any:
        met[0] = any(call.kind is kind for call in calls)
        return await run(self, calls, *rest)

    async def patched_commit(self: Any, *given: Any) -> Any:
        if met[0] and not after:
            passed()
        failure = await commit(self, *given)
        if met[0] and after:
            passed()
        return failure

    postgres_writer.Writer._run = patched_run  # type: ignore[method-assign] # that is what a break is
    postgres_writer.Writer._commit = patched_commit  # type: ignore[method-assign] # that is what a break is


def _at_call(point: str, passed: Callable[[], None]) -> None:
    call = Attempts._call

    async def patched(self: Attempts, *given: Any) -> Any:
        if point == "before-call":
            passed()
        outcome = await call(self, *given)
        if point == "accepted" and isinstance(outcome, Accepted):
            passed()
        return outcome

    Attempts._call = patched  # type: ignore[method-assign] # that is what a break is


def _at_recovery(passed: Callable[[], None]) -> None:
    restore = service.restore_gates

    async def patched(*given: Any) -> None:
        passed()  # what a crash left open is settled, nothing is released yet
        await restore(*given)

    service.restore_gates = patched


BREAKS = {"die-at": die_at}
