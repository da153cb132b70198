"""E16: the provider is down for minutes while a backlog waits, and then comes back.

Four accounts have their limits and a quarter of the backlog each. Their provider refuses connections, in the middle
of which the server is killed once. The backlog must keep its attempts, the provider must be left alone but for
probes, and on its return it must get what the limits allow and no more.
"""

import time
from collections import Counter
from pathlib import Path

import apsw

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.loop import Loop
from bench.faults.proxy import Phase, Proxy
from bench.faults.variant import Variant
from paceline.wiring import FILE_NAME
from tests.scenarios.server import Server, Witness, text_body, until

MESSAGES, DOWN_S, ACCOUNTS, PER_SECOND = 20_000, 600.0, 4, 50
PLACES, OPENS_AFTER, FIRST_S, MOST_S = 8, 5, 2, 30


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    count, down = scale.count(MESSAGES, 1000), max(30.0, DOWN_S * scale.size)
    loop = Loop()
    with Witness(folder, "--latency", "0.005-0.02") as witness, Variant(folder, breaking) as server, loop:
        proxy = loop.run(Proxy(lambda: witness.port).open())
        server.start()
        settings = {"base_url": f"http://127.0.0.1:{proxy.port}"}
        for number in range(ACCOUNTS):
            body = {"channel": "telegram-bot", "settings": settings | {"token": f"{1000 + number}:secret"},
                    "concurrency": PLACES, "limits": [f"{PER_SECOND}/s"]}  # fmt: skip
            server.api("PUT", f"/accounts/a{number}", body)
        loop.run(proxy.set(Phase(refuse=True)))
        server.send_all([text_body(f"a{n % ACCOUNTS}", f"m{n}") for n in range(count)])
        why = _down(server, down)
        loop.run(proxy.set(None))
        up = time.monotonic_ns()
        ideal = count / (ACCOUNTS * PER_SECOND)
        witness.wait(arrived=1, within=4 * MOST_S)
        try:
            until(
                lambda: not server.count("pending", "processing", "retrying"), "all is sent", 60 + 4 * ideal
            )
        except AssertionError:
            pass  # the figures tell how far it came
        failed = server.count("failed")
        server.stop()
        loop.run(proxy.close())
        moments = sorted(arrival.monotonic for arrival in witness.arrivals())
    calls = _calls_while_down(server)
    return _judge(moments, up, count, failed, calls, why, down, ideal)


def _down(server: Server, seconds: float) -> str:
    """Let the time pass, with a kill in the middle; what a waiting message says."""
    time.sleep(seconds / 2)
    server.kill()
    server.start()
    time.sleep(seconds / 2 - 1)
    waiting = server.api("GET", "/messages?state=pending&limit=1")["items"]
    return (
        str([each["text"] for each in server.why(waiting[0]["id"])["reasons"]]) if waiting else "nobody waits"
    )


def _calls_while_down(server: Server) -> dict[str, int]:
    """By account: calls that did not reach the provider, from the journal."""
    connection = apsw.Connection(str(server.data / FILE_NAME))
    rows = connection.execute("SELECT account, count(*) FROM attempt WHERE outcome = 'Temporary' GROUP BY 1")
    found = dict(rows.fetchall())
    connection.close()
    return found


def _judge(
    moments: list[int],
    up: int,
    count: int,
    failed: int,
    calls: dict[str, int],
    why: str,
    down: float,
    ideal: float,
) -> list[Figure]:
    first, last = moments[0], moments[-1]
    seconds = Counter((moment - first) // 10**9 for moment in moments)
    lasted = (last - first) / 1e9
    mean = len(moments) / max(1.0, lasted)
    # Probes double from the first interval to the longest; besides, what was under way when it went down and
    # what it takes to notice, again after the kill for what the last probe had not told yet.
    probes = 2 * (PLACES + OPENS_AFTER) + 6 + down / (MOST_S * 0.9)
    return [
        no_less("messages that waited", count, 1000),
        no_more("of them failed, their attempts used up by the outage", failed, 0),
        no_more("calls by one account while the provider was down", max(calls.values(), default=0), round(probes)),
        Figure("what a waiting message said", why, "names the provider", "does not answer" in why),
        no_more("seconds until the return was noticed", round((first - up) / 1e9, 1), round(MOST_S * 1.1 + 2, 1)),
        no_more("busiest second after it, of the mean", round(max(seconds.values()) / mean, 2), 2),
        no_more("time to send all, of the least there is", round(lasted / ideal, 2), 1.2),
        no_more("arrived more than once", len(moments) - count if failed == 0 else 0, 0),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E16",
    title="provider down with a backlog",
    run=run,
    breaks={
        "no-circuit": "accounts go on calling a provider that does not answer",
        "circuit-forgotten": "a restart forgets which providers did not answer",
    },
)
