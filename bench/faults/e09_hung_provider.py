"""E09: one provider of a hundred accepts the connection and never answers.

All accounts send at the same steady rhythm, once with that one answering and once with it hanging. It has no circuit
and more messages than its own places can take, so they are full of hung calls all the time. The others are not to
feel it; a call that hung ends at its time limit, and says that nobody knows what became of it.
"""

import time
from datetime import datetime
from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.loop import Loop
from bench.faults.proxy import Phase, Proxy
from bench.faults.variant import Variant
from tests.scenarios.server import Server, Witness, text_body, until

ACCOUNTS, SECONDS, EVERY_S, LIMIT_S = 100, 120.0, 0.01, 2
PLACES, HUNG_EVERY = 4, 33
"""The one that hangs is sent a message of so many: three a second, where its places take two a second."""
NOISE_MS = 25.0
"""A tenth of a delay of a few milliseconds is below what two runs on one machine differ by."""


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    loop = Loop()
    with Witness(folder, "--latency", "0.002-0.01") as witness, Variant(folder, breaking) as server, loop:
        proxy = loop.run(Proxy(lambda: witness.port).open())
        try:
            return _measure(server, witness, loop, proxy, max(8.0, SECONDS * scale.size))
        finally:
            loop.run(proxy.close())


def _measure(server: Server, witness: Witness, loop: Loop, proxy: Proxy, seconds: float) -> list[Figure]:
    server.start()
    for number in range(1, ACCOUNTS):
        server.account(f"a{number}", witness, 1000 + number, concurrency=PLACES)
    settings = {"token": "1000:secret", "base_url": f"http://127.0.0.1:{proxy.port}"}
    hangs = {"channel": "telegram-bot", "settings": settings, "concurrency": PLACES, "circuit": None}
    server.api("PUT", "/accounts/a0", hangs)
    usual = _delays(server, witness, "usual", seconds)
    loop.run(proxy.set(Phase(hang=True)))
    before = proxy.connections
    beside = _delays(server, witness, "beside", seconds)
    until(lambda: not server.count("pending", "processing"), "the hung calls have ended", 60 + 4 * seconds)
    hung = proxy.connections - before
    ends = [m for m in server.all_messages() if m["account"] == "a0" and m["text"].startswith("beside")]
    lasted = [_lasted(message) for message in ends]
    others = server.count("uncertain", "failed", "retrying") - sum(m["state"] == "uncertain" for m in ends)
    server.stop()
    return [
        no_less("messages of the other accounts, measured twice", min(len(usual), len(beside)), 200),
        Figure("delay at the 99th percentile without the hung one, ms", f"{_p99(usual):.1f}", "-", True),
        no_more("delay at the 99th percentile beside it, ms", round(_p99(beside), 1),
                round(max(1.1 * _p99(usual), _p99(usual) + NOISE_MS), 1)),
        no_less("calls that hung", hung, round(PLACES * seconds / (2 * LIMIT_S))),
        Figure("of them uncertain", str(sum(m["state"] == "uncertain" for m in ends)), f"exactly {hung}",
               sum(m["state"] == "uncertain" for m in ends) == hung == len(ends)),
        no_more("longest hung call, seconds", max(lasted, default=0.0), LIMIT_S + 2),
        no_less("shortest hung call, seconds", min(lasted, default=0.0), LIMIT_S - 0.1),
        no_more("messages of others that were not sent at once", others, 0),
    ]  # fmt: skip


def _delays(server: Server, witness: Witness, name: str, seconds: float) -> list[float]:
    """Send one after another, to the accounts in turn; how long those to the others took to arrive, in milliseconds."""
    sent: dict[str, int] = {}
    mine: set[str] = set()
    with server.line() as line:
        begun = time.monotonic()
        for number in range(round(seconds / EVERY_S)):
            account, text = (1 + number % (ACCOUNTS - 1)) if number % HUNG_EVERY else 0, f"{name} {number}"
            time.sleep(max(0.0, begun + number * EVERY_S - time.monotonic()))
            sent[text] = time.monotonic_ns()
            reply = line.ask(
                "POST", "/api/v1/messages", text_body(f"a{account}", text, timeout=f"{LIMIT_S}s")
            )
            assert reply.status == 202, reply.body
            if account:
                mine.add(text)

    def arrived() -> list[float]:
        return [(a.monotonic - sent[a.text]) / 1e6 for a in witness.arrivals() if a.text in mine]

    until(lambda: len(arrived()) == len(mine), "the others have arrived", 60)
    return arrived()


def _p99(delays: list[float]) -> float:
    return sorted(delays)[int(0.99 * (len(delays) - 1))]


def _lasted(message: dict) -> float:
    begun, ended = (datetime.fromisoformat(message[name]) for name in ("started_at", "finished_at"))
    return (ended - begun).total_seconds()


EXPERIMENT = Experiment(
    id="E09",
    title="a provider that never answers",
    run=run,
    breaks={
        "one-place-for-all": "few calls may be under way over all accounts",
        "no-deadline": "a call may take ten minutes",
    },
)
