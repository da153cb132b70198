"""E08: functions of the user's own that sleep, that compute, and that hold the event loop.

Accounts with a limit send at its pace all the while; the provider's ledger tells whether they keep it. They do so in
bursts, one for each window, so pace is taken over whole windows: how many a moment of the clock cuts off is chance. A
plain function runs in a thread and must not be felt. An async one that blocks holds everybody up, which nobody can
prevent: it has to be named in the log, and the others have to go on at once when it lets go.
"""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.variant import Variant
from tests.scenarios.ledger import Arrival, by_sender
from tests.scenarios.server import NotAnsweredError, Server, Witness, text_body, until

ACCOUNTS, PER_SECOND = 10, 20
BLOCK_S, SLEEPERS, SPINNERS = 90.0, 30, 1
WINDOW_NS = 10**9

Phase = tuple[int, int]
"""When it began and ended, on the monotonic clock in nanoseconds."""


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    seconds = max(4.0, BLOCK_S * scale.size)
    with (
        Witness(folder, "--latency", "0.002-0.01") as witness,
        Variant(folder, breaking or "handlers") as server,
    ):
        server.start()
        server.api("PUT", "/queues/own", {"concurrency": 64})
        for number in range(ACCOUNTS):
            server.account(f"a{number}", witness, 1000 + number, concurrency=4, limits=[f"{PER_SECOND}/s"])
        each = round(PER_SECOND * (4 * seconds + 30))
        server.send_all([text_body(f"a{a}", f"{a}-{n}") for n in range(each) for a in range(ACCOUNTS)])
        witness.wait(taken=ACCOUNTS * PER_SECOND)
        plain = _phase(seconds)
        _functions(server, "sleep", SLEEPERS, seconds)
        sleeping = _phase(seconds)
        _done(server, seconds)
        _functions(server, "spin", SPINNERS, seconds)
        spinning = _phase(seconds)
        _done(server, seconds)
        began = time.monotonic_ns()
        _functions(server, "block", 1, seconds)
        _done(server, 3 * seconds)
        ended = time.monotonic_ns()
        witness.wait(taken=witness.report()["taken"] + ACCOUNTS * PER_SECOND)
        said = server.log.read_text("utf-8", "replace").splitlines()
        server.kill()
        arrivals = witness.arrivals()
    usual, beside_sleep, beside_spin = (_pace(arrivals, phase) for phase in (plain, sleeping, spinning))
    # The last arrival before it is up to a window older, and the first after it as much younger.
    gap, back = _gap(arrivals, began - 2 * WINDOW_NS, ended + 2 * WINDOW_NS)
    named = [json.loads(line) for line in said if "event loop is blocked" in line]
    named = [line for line in named if "kind block" in line["by"] and "_block" in line["at"]]
    return [
        Figure("arrivals in a second with nothing in the way", f"{usual:.1f}", f"about {ACCOUNTS * PER_SECOND}",
               usual > 0.9 * ACCOUNTS * PER_SECOND),
        no_less(f"pace while {SLEEPERS} functions sleep, % of that", round(100 * beside_sleep / usual, 1), 95),
        no_less(f"pace while {SPINNERS} computes, % of that", round(100 * beside_spin / usual, 1), 95),
        no_less("the blockade was felt, seconds without an arrival", round(gap, 1), 0.8 * seconds),
        no_less("lines that name the function which blocks", len(named), 1),
        no_more("milliseconds until everybody sent again", round(back), 1500),
    ]  # fmt: skip


def _functions(server: Server, kind: str, count: int, seconds: float) -> None:
    payload = {"seconds": seconds + 2}  # until the window is over in which the phase ends
    job = {
        "channel": "handler",
        "queue": "own",
        "kind": kind,
        "payload": payload,
        "timeout": f"{seconds + 60}s",
    }
    server.send_all([job for _ in range(count)])
    if kind != "block":
        processing = {"action": "delete", "filter": {"state": ["processing"], "queue": ["own"]}}
        until(lambda: _matched(server, processing) == count, "they run")


def _done(server: Server, seconds: float) -> None:
    order = {"action": "delete", "filter": {"state": ["pending", "processing"], "queue": ["own"]}}
    until(lambda: not _matched(server, order), "they end", 60 + seconds)


def _matched(server: Server, order: dict[str, Any]) -> int:
    try:
        return int(server.api("POST", "/messages/actions?dry_run=true", order)["matched"])
    except NotAnsweredError as error:
        raise AssertionError(f"nobody is answered while functions run: {error}") from error


def _phase(seconds: float) -> Phase:
    """Let so many seconds pass."""
    began = time.monotonic_ns()
    time.sleep(seconds)
    return began, time.monotonic_ns()


def _pace(arrivals: list[Arrival], phase: Phase) -> float:
    """Arrivals in a second over all accounts, from the first in the phase to the end of the window that it ends in."""
    began, ended = phase
    pace = 0.0
    for moments in by_sender(arrivals).values():
        opening = [moment for moment in moments if moment >= began][::PER_SECOND]
        windows = next(number for number, moment in enumerate(opening) if moment >= ended)
        pace += PER_SECOND * windows * 1e9 / (opening[windows] - opening[0])
    return pace


def _gap(arrivals: list[Arrival], began: int, ended: int) -> tuple[float, float]:
    """The longest silence in seconds, and how long after it the last account was back, in milliseconds."""
    moments = sorted(a.monotonic for a in arrivals if began <= a.monotonic <= ended)
    longest, at = max((later - earlier, later) for earlier, later in pairwise(moments))
    firsts: dict[str, int] = {}
    for arrival in sorted(arrivals):
        if arrival.monotonic >= at:
            firsts.setdefault(arrival.sender, arrival.monotonic)
    return longest / 1e9, (max(firsts.values()) - at) / 1e6


EXPERIMENT = Experiment(
    id="E08",
    title="functions that block",
    run=run,
    breaks={
        "functions-in-the-loop": "plain functions run in the event loop, not in threads",
        "no-loop-watch": "nobody watches the event loop",
    },
)
