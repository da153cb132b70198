"""Logs: structured, one line each, without secrets and without what messages say."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SENSITIVE = ("token", "password", "secret", "authorization", "key", "content", "text", "payload", "html")
"""Names whose values never reach a log."""
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank out values under sensitive names."""
    for name in event:
        if name != "event" and any(part in name.lower() for part in SENSITIVE):
            event[name] = "[redacted]"
    return event


def one_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape line breaks and terminal control characters that came in from outside.

    An exception keeps its lines, indented: what it quotes cannot pass for a line of the log.
    """
    for name, value in event.items():
        if not isinstance(value, str) or value.isprintable():
            continue
        if name == "exception":
            event[name] = "\n    ".join(map(_plain, value.split("\n")))
        else:
            event[name] = _plain(value)
    return event


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def configure_logging(level: str = "info", form: str = "auto") -> None:
    """Log to standard error: text on a terminal, JSON lines elsewhere, unless `form` is ``text`` or ``json``."""
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer(colors=as_text and sys.stderr.isatty())
    if not as_text:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            one_line,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # It writes a line at once, with its end: several processes may share the stream.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(30, _LEVELS[level]), format="%(levelname)s %(name)s %(message)s")
