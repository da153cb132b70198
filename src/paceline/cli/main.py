"""``paceline``: the tree of commands, and what becomes of an error: two lines and an exit code, no traceback."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError, UnknownCommandError, UnknownOptionError

from paceline import __version__
from paceline.client_types import BusyError, RefusedError, UnreachableError
from paceline.model.errors import (
    InvalidError,
    NotFoundError,
    OccupiedError,
    PacelineError,
    Problem,
    SchemaError,
)

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130

_ROOMS: Final[Sequence[tuple[str, str, str]]] = (
    ("up", "paceline.cli.up:up", "Start the server."),
    (
        "demo",
        "paceline.cli.demo:demo",
        "A show of two minutes: 300 messages, three accounts, one flood wait.",
    ),
    ("send", "paceline.cli.send:send", "Send a message, or many from a file."),
    ("status", "paceline.cli.status:status", "What waits, what is sent, how the accounts are."),
    ("messages", "paceline.cli.messages:app", "List, show, explain, retry and cancel messages."),
    ("accounts", "paceline.cli.accounts:app", "Set, list, pause, resume, test and probe accounts."),
    ("limits", "paceline.cli.limits:app", "Set, list and remove limits wider than one account."),
    ("queues", "paceline.cli.queues:app", "List, pause, resume, empty and clean queues."),
    ("nodes", "paceline.cli.nodes:nodes", "The processes that share a store, and what falls to each."),
    ("keys", "paceline.cli.keys:app", "Create, list and revoke keys."),
    ("test-queue", "paceline.cli.trial:trial", "Send test messages and tell how long they took."),
    ("export", "paceline.cli.export:export", "Write messages as CSV or JSON lines."),
    ("audit", "paceline.cli.audit:audit", "Hold what is stored against what was promised, without a server."),
    ("hold", "paceline.cli.hold:hold", "Send nothing more until it is released."),
    ("release", "paceline.cli.hold:release", "Send again after a restore, a move or a hold."),
    ("backup", "paceline.cli.backup:backup", "Copy the database, whether or not the server runs."),
    ("restore", "paceline.cli.backup:restore", "Put a copy into a data folder; it starts on hold."),
    ("store", "paceline.cli.store:app", "Check the database, or move it to another schema."),
    ("outbox", "paceline.cli.outbox:app", "Enqueue from an application's own transactions."),
    ("doctor", "paceline.cli.doctor:doctor", "Check the installation and say what to mend."),
)
_EXAMPLES: Final = {
    "send": """Examples:
  paceline send --channel smtp --to ada@example.com --subject Hello --text Hi
  paceline send --channel webhook --to https://example.com/ --payload '{}'
  paceline send --file messages.jsonl
  generate | paceline send""",
}
_OPTION_OF_FIELD: Final = {"scheduled_at": "at", "variables": "var"}


def build(command: str = "") -> App:
    """The tree of commands, to run `command`; what a command needs is imported when it is used."""
    app = App(
        name="paceline",
        help="A durable outbound message queue that keeps every limit exactly.",
        help_epilogue="Start with: paceline up. Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not found,"
        " 4 server unreachable.",
        version=f"paceline {__version__}",
        version_flags=["--version"],
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for index, (name, path, words) in enumerate(_ROOMS):
        # The one that is run has its own, longer words; the others are not imported for theirs.
        own: dict[str, Any] = {"help": words} if name != command else {}
        if name in _EXAMPLES:
            own["help_epilogue"] = _EXAMPLES[name]
        app.command(path, name=name, sort_key=index, **own)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    app = build(given[0] if given else "")
    try:
        code = app(given, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except CycloptsError as error:
        return _wrong_usage(error)
    except InvalidError as error:
        _say(*(_problem(problem) for problem in error.problems))
        return USAGE
    except NotFoundError as error:
        _say(str(error))
        return NOT_FOUND
    except UnreachableError as error:
        _say(str(error), "Start the server with: paceline up   (or name another one with --server)")
        return UNREACHABLE
    except PacelineError as error:
        _say(str(error), _advice(error))
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich's way to say it
            return _closed_pipe()
        raise
    except Exception as error:
        if os.environ.get("PACELINE_DEBUG"):
            raise
        if isinstance(error, OSError) and error.strerror:
            _say(f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
        else:
            _say(
                f"unexpected {type(error).__name__}: {error}",
                "This is a defect. Run it again with PACELINE_DEBUG=1 to see where it happens.",
            )
        return FAILED


def main() -> None:
    """The entry point."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _closed_pipe()
    raise SystemExit(code)


def _closed_pipe() -> int:
    """The reader has seen enough: not an error, and nothing must complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def _say(*lines: str) -> None:
    from paceline.cli.show import note, safe

    for index, line in enumerate(line for line in lines if line):
        note(f"error: {safe(line)}" if index == 0 else f"  {safe(line)}")


def _wrong_usage(error: CycloptsError) -> int:
    _say(_words(error), f"See: {' '.join(['paceline', *_chain(error)])} --help")
    return USAGE


def _words(error: CycloptsError) -> str:
    if isinstance(error, UnknownCommandError) and error.app is not None and error.unused_tokens:
        return _unknown("command", error.unused_tokens[0], _names(error.app))
    if isinstance(error, UnknownOptionError):
        collection = getattr(error, "argument_collection", None) or ()
        options = [name for argument in collection for name in argument.names if name.startswith("--")]
        return _unknown("option", error.token.value or error.token.keyword or "", options)
    text = str(error).strip()
    return " ".join(text.split())


def _names(app: App) -> list[str]:
    return [name for name in app if not name.startswith("-")]


def _unknown(what: str, given: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(given.lstrip("-"), [one.lstrip("-") for one in known], n=1, cutoff=0.6)
    if close:
        meant = next(one for one in known if one.lstrip("-") == close[0])
        return f"there is no {what} '{given}'; did you mean '{meant}'?"
    if what == "option" and len(known) > 8:
        return f"there is no option '{given}'"
    return f"there is no {what} '{given}'; there are {', '.join(known)}"


def _chain(error: CycloptsError) -> Sequence[str]:
    chain: Any = getattr(error, "command_chain", None)
    return tuple(chain) if chain else ()


def _problem(problem: Problem) -> str:
    name = problem.field.strip("/")
    if problem.problem.startswith(("option --", "environment ", "file ", "--config", "--")) or not name:
        return problem.problem
    if "/" in name:
        return f"{name}: {problem.problem}"
    return f"--{_OPTION_OF_FIELD.get(name, name).replace('_', '-')}: {problem.problem}"


def _advice(error: PacelineError) -> str:
    if isinstance(error, RefusedError):
        return "Name the right key with --key-file FILE or PACELINE_KEY; it needs a role that may do this."
    if isinstance(error, BusyError):
        after = f" in {error.retry_after:g} s" if error.retry_after else " in a moment"
        return f"Try again{after}."
    if isinstance(error, OccupiedError):
        return "Stop the other server first, or give this one another folder with --data."
    if isinstance(error, SchemaError):
        return "Give another folder with --data, or use the version of Paceline that wrote this one."
    return ""


if __name__ == "__main__":
    main()
