"""``paceline demo``: a real server, real SMTP, real limits, and what happens told while it happens."""

import csv
import shutil
import signal
import sys
from pathlib import Path
from threading import Event
from typing import Any, Final

from cyclopts.types import PositiveInt

from paceline.cli.options import Switch
from paceline.cli.scenes import Scene, frame, line, look
from paceline.cli.server import Server
from paceline.cli.show import note, plural, put, safe, spell
from paceline.cli.stage import EXAMPLES, Stage, free_port
from paceline.clock import SystemClock
from paceline.model.errors import PacelineError

FLOOD_EVERY: Final = 20
CAMPAIGN: Final = "demo"


def demo(
    *,
    once: Switch = False,
    messages: PositiveInt = 300,
    port: int = 8080,
    data: Path = Path("demo-data"),
) -> int:
    """Show it: 300 messages through three accounts with different limits, and one flood wait. Two minutes.

    It starts a server, a mail server that keeps every mail as a file, and a webhook receiver that says 'too
    many' once in a while. Ctrl-C stops it all; the next time it goes on where it stopped.

    Args:
        once: End when everything is sent, instead of staying up.
        messages: How many of the 300.
        port: Port of the server; the next free one when it is taken.
        data: Folder for everything it makes.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    taken = free_port(port)
    if taken != port:
        put(f"Port {port} is taken, so the server uses {taken}.")
    with Stage(data, taken) as stage:
        server: Server | None = None
        try:
            server = stage.start(FLOOD_EVERY)
            _tell_where(stage)
            _set_up(server, stage)
            _load(server, messages)
            _play(server, stage, once=once)
            return 0
        except KeyboardInterrupt:
            _goodbye(server, stage)
            return 0
        finally:
            if server is not None:
                server.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _tell_where(stage: Stage) -> None:
    put(f"The server runs at {stage.address}; its key is in {stage.key_file}.")
    put(f"Mails are caught in {stage.mails}, webhooks in {stage.data / 'webhooks.jsonl'}.")
    put(
        f"Look in from another terminal: {_command()} status --server {stage.address} --key-file {stage.key_file}"
    )


def _set_up(server: Server, stage: Stage) -> None:
    """Three accounts: one in bursts, one in even steps, and one whose provider is moody."""
    mail = {"host": "127.0.0.1", "port": stage.mail_port, "security": "none"}
    mail["from"] = "News <news@example.com>"
    server.call("PUT", "/accounts/fast", {"channel": "smtp", "settings": mail, "limits": ["20/10s"]})
    server.call("PUT", "/accounts/steady", {"channel": "smtp", "settings": mail, "interval": "2s"})
    hook = {"url": f"http://127.0.0.1:{stage.hook_port}/"}
    server.call("PUT", "/accounts/hooks", {"channel": "webhook", "settings": hook, "limits": ["5/2s"]})
    put("Accounts: fast sends at most 20 mails in any 10 s, steady one every 2 s,")
    put("          hooks at most 5 webhooks in any 2 s, and its receiver sometimes says 'too many'.")
    template = {"subject": "Issue {{ issue }}, for {{ name }}"}
    for kind, name in (("text", "newsletter.txt"), ("html", "newsletter.html")):
        template[kind] = (EXAMPLES / name).read_text("utf-8")
    server.call("PUT", "/templates/newsletter", template)


def _load(server: Server, most: int) -> None:
    with (EXAMPLES / "contacts.csv").open(encoding="utf-8", newline="") as file:
        contacts = list(csv.DictReader(file))[:most]
    bodies = [_message(contact) for contact in contacts]
    answer = server.post("/messages/batch", {"messages": bodies})
    if answer["rejected"]:
        wrong = answer["rejected"][0]["errors"]
        raise PacelineError(f"a message of the demonstration was refused: {safe(wrong)}")
    again = sum(bool(one.get("duplicate")) for one in answer["accepted"])
    fresh = len(answer["accepted"]) - again
    if again:
        put(f"{plural(again, 'message')} loaded by an earlier run: each has a key, so none is loaded twice.")
    if fresh:
        put(f"{plural(fresh, 'message')} loaded from examples/contacts.csv in one batch; all on disk.")
    put()


def _message(contact: dict[str, str]) -> dict[str, Any]:
    labels = {"campaign": CAMPAIGN, "idempotency_key": f"demo:{contact['address']}"}
    if contact["by"] == "webhook":
        payload = {"event": "issue-published", "issue": 7, "for": contact["address"]}
        return {"channel": "webhook", "account": "hooks", "payload": payload, **labels}
    variables = {"name": contact["name"], "address": contact["address"], "issue": 7}
    return {
        "channel": "smtp", "to": contact["address"], "template": "newsletter", "variables": variables, **labels
    }  # fmt: skip


def _play(server: Server, stage: Stage, *, once: bool) -> None:
    """Tell what happens, until everything is sent, or until Ctrl-C."""
    clock, pause = SystemClock(), Event()
    began = clock.now()

    def scene() -> Scene:
        if not stage.alive():
            raise PacelineError(f"one of the processes ended by itself; see {stage.log_file}")
        return look(server, (clock.now() - began) / 1000)

    if sys.stdout.isatty():
        done = _play_live(scene, pause)
    else:
        done = _play_lines(scene, pause)
    put()
    if done.loaded:
        put(f"All {plural(done.total, 'message')} have left, the last after {spell(done.elapsed)}.")
    else:
        put("Everything was sent by an earlier run. To see it again, remove the folder first:")
        put(f"  rm -r {stage.data}")
    _what_next(stage)
    if once:
        return
    put("The server stays up. Ctrl-C stops it.")
    sys.stdout.flush()
    while stage.alive():
        pause.wait(0.5)
    raise PacelineError(f"one of the processes ended by itself; see {stage.log_file}")


def _play_lines(scene: Any, pause: Event) -> Scene:
    """One line each second: for a file, a pipe, a log."""
    now: Scene = scene()
    loaded = bool(now.open)
    while now.open:
        for text in line(now):
            put(text)
        sys.stdout.flush()
        pause.wait(1.0)
        now = scene()
    now.loaded = loaded
    return now


def _play_live(scene: Any, pause: Event) -> Scene:
    """A picture that is redrawn in place."""
    from rich.live import Live
    from rich.text import Text

    from paceline.cli.show import console

    now: Scene = scene()
    loaded = bool(now.open)
    with Live(console=console(), auto_refresh=False, transient=False) as live:
        while True:
            live.update(Text("\n").join(Text.from_ansi(text) for text in frame(now)), refresh=True)
            if not now.open:
                break
            pause.wait(0.25)
            now = scene()
    now.loaded = loaded
    return now


def _what_next(stage: Stage) -> None:
    command = _command()
    put("Try next, in another terminal:")
    put(f"  export PACELINE_SERVER={stage.address} PACELINE_KEY_FILE={stage.key_file}")
    put(f"  {command} status")
    put(f"  {command} messages list --account hooks")
    put(f"  {command} send --channel smtp --to you@example.com --subject Hello --text Hi --wait")
    put(f"  {command} accounts show fast")
    put(f"And look at {stage.address}/ and {stage.mails}.")


def _command() -> str:
    """How this command is called here."""
    if shutil.which("paceline"):
        return "paceline"
    beside = Path(sys.executable).with_name("paceline")
    if not beside.exists():
        return f"{sys.executable} -m paceline.cli.main"
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)


def _goodbye(server: Server | None, stage: Stage) -> None:
    waiting: int | None = None
    if server is not None:
        try:
            waiting = look(server, 0).open
        except PacelineError:
            pass
    put()
    put("Stopping: calls in flight may finish.")
    if server is not None:
        server.close()
    stage.stop()
    if waiting:
        put(f"{plural(waiting, 'message')} wait on disk. Run it again, and it goes on where it stopped.")
    elif waiting == 0:
        put("Nothing waits.")
    note("Stopped. No process is left.")
