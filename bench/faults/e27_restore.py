"""A copy is put back while the original lives: it sends nothing until it is released, and then nothing twice.

The original is copied while calls of it are under way; the copy is started beside it, and both could send. Then
a folder is copied by hand, moved, and an older database is put back into its place.
"""

import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.faults.breaks_ops import launcher
from bench.faults.experiment import Experiment, Figure, Scale, no_more
from tests.scenarios.server import Server, Witness, clean_environment, drained, text_body, until

CALLS = 4
"""Calls under way at the moment of the copy."""
SPENT = 5
"""Messages that use up the limit of an account before the copy is made."""


def run(folder: Path, scale: Scale, break_: str) -> list[Figure]:
    """Everything once, with `scale.size` of 2,000 waiting messages."""
    waiting = scale.count(2000, 60)
    with Witness(folder, "--seed", str(scale.seed)) as witness:
        with Server(folder, prefix=launcher(break_)) as server:
            late = _fill(server, witness, waiting)
            figures = _beside(folder, server, witness, break_, late)
        return figures + _by_hand(folder, break_)


def _fill(server: Server, witness: Witness, waiting: int) -> str:
    """Messages of every kind; answers the id of one that is due in an hour."""
    server.start()
    server.account("bot", witness, 1000, concurrency=CALLS)
    server.account("spent", witness, 2000, limits=[f"{SPENT}/h"])
    server.send_all([text_body("spent", f"s{n}") for n in range(SPENT)])
    witness.wait(taken=SPENT)
    drained(server, 30)
    witness.behave("", hold=True)
    server.send_all([text_body("bot", f"m{n}") for n in range(waiting)])
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    server.send_all([text_body("bot", f"soon{n}", scheduled_at=soon) for n in range(10)])
    witness.wait(open=CALLS)
    return server.send(**text_body("bot", "late", delay="1h"))


def _beside(folder: Path, server: Server, witness: Witness, break_: str, late: str) -> list[Figure]:
    """The copy beside its original."""
    made = server.api("POST", "/backups", {"name": "copy.db", "keys": True})
    second = folder / "second"
    second.mkdir()
    said = cli("restore", str(server.data / "backups" / "copy.db"), "--data", str(second / "data"))
    assert said.returncode == 0, said.stderr
    with Server(second, prefix=launcher(break_)) as copy:
        copy.spawn().listening()
        copy.key = (copy.data / "admin.key").read_text().strip()
        until(lambda: copy.ask("GET", "/health/live").status == 200, "the copy answers")
        hold = copy.api("GET", "/hold")
        new = copy.send(**text_body("bot", "new"))
        tells = "held" in {each["kind"] for each in copy.why(new)["reasons"]}
        red = copy.ask("GET", "/health/ready").status == 503
        witness.behave("", hold=False)
        witness.release()
        until(
            lambda: not server.count("pending", "processing") and server.count("scheduled") == 1,
            "the original has sent all but what is due in an hour", 300,
        )  # fmt: skip
        doubled, states = _doubled(witness), Counter(each["state"] for each in copy.all_messages())
        figures = [
            Figure("the copy says that it is on hold and why", str(hold.get("cause")), "restored",
                   hold == {**hold, "held": True, "cause": "restored"}),
            Figure("a waiting message and the health say so", f"{tells}, {red}", "True, True", tells and red),
            no_more("sent by the copy while the original lives", doubled + ("new" in _texts(witness)), 0),
            Figure("under way at the moment of the copy: uncertain in it", str(states["uncertain"]), str(CALLS),
                   states["uncertain"] == CALLS == made["under_way"]),
        ]  # fmt: skip
        return figures + _released(copy, witness, new, late, made["waiting"] - 1)


def _released(copy: Server, witness: Witness, new: str, late: str, due: int) -> list[Figure]:
    """The original ran until now: the `due` that were due before are cancelled, what came later goes."""
    now = datetime.now(UTC).isoformat()
    done = copy.ask("POST", "/api/v1/hold/release", {"cancel_before": now})
    cancelled = done.json.get("cancelled", 0)
    until(lambda: copy.get(new)["state"] == "completed", "what the copy took in itself goes")
    limited = copy.send(**text_body("spent", "over"))
    kinds = {each["kind"] for each in copy.why(limited)["reasons"]}
    return [
        Figure("cancelled instead of sent again", str(cancelled), str(due), cancelled == due),
        no_more("sent twice in all", _doubled(witness), 0),
        Figure("what is due later still waits", copy.get(late)["state"], "scheduled",
               copy.get(late)["state"] == "scheduled"),
        Figure("limits remember what was sent before the copy", ", ".join(sorted(kinds)), "limit",
               "limit" in kinds),
    ]  # fmt: skip


def _by_hand(folder: Path, break_: str) -> list[Figure]:
    """A folder that is copied, moved, or has an older database put into it, without any of our commands."""
    data, third = folder / "data", folder / "third"
    third.mkdir()
    shutil.copytree(data, third / "data")
    copied = _cause(third, third / "data", break_)
    (folder / "moved").mkdir()
    data.rename(folder / "moved" / "data")
    moved = _cause(folder, folder / "moved" / "data", break_)
    older = folder / "older.db"
    shutil.copyfile(folder / "moved" / "data" / "paceline.db", older)
    again = _cause(folder, folder / "moved" / "data", break_)
    shutil.copyfile(older, folder / "moved" / "data" / "paceline.db")  # the same file with older pages
    back = _cause(folder, folder / "moved" / "data", break_)
    return [
        Figure("a folder copied by hand is on hold", copied, "copied", copied == "copied"),
        Figure("a folder moved on its disk goes on", f"{moved}, {again}", "none, none", moved == again == "none"),
        Figure("an older database put back is on hold", back, "rolled-back", back == "rolled-back"),
    ]  # fmt: skip


def _cause(folder: Path, data: Path, break_: str) -> str:
    with Server(folder, data, prefix=launcher(break_)) as server:
        server.spawn().listening()
        server.key = (data / "admin.key").read_text().strip()
        until(lambda: server.ask("GET", "/health/live").status == 200, "it answers")
        cause: str = server.api("GET", "/hold").get("cause", "none")
        assert server.stop() == 0
    return cause


def _texts(witness: Witness) -> list[str]:
    return [arrival.text for arrival in witness.arrivals()]


def _doubled(witness: Witness) -> int:
    return sum(count - 1 for count in Counter(_texts(witness)).values())


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, as a person runs it."""
    command = [sys.executable, "-m", "paceline.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())


EXPERIMENT = Experiment(
    "E27",
    "A copy beside its original",
    run,
    {
        "no-hold": "a copy knows that it is one and sends all the same",
        "no-doubt": "a database does not notice that it was copied or put back",
        "cancel-nothing": "a release forgets what was to be cancelled",
    },
)
