"""Values as people type them on a command line, into values as the server takes them."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from paceline.model.errors import InvalidError, Problem

_SECRET: Final = re.compile(r"pass|token|secret|key|auth", re.IGNORECASE)
_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,15}", re.ASCII)


def pairs(option: str, given: list[str] | None) -> dict[str, Any]:
    """``name=value`` options as an object.

    Whole numbers, true and false become what they look like, except for names of secrets; ``name=@FILE`` is a
    file's text (so that no secret is in the shell's history); ``name:=JSON`` is taken as it is written.
    """
    made: dict[str, Any] = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals or not name.rstrip(":"):
            raise InvalidError([Problem(f"/{option}", f"{one[:60]!r} must be name=value")])
        if name.endswith(":"):
            name = name[:-1]
            made[name] = parsed(option, value, f"{name}:=")
        elif value.startswith("@@"):
            made[name] = value[1:]
        elif value.startswith("@"):
            made[name] = read_text(option, Path(value[1:])).rstrip("\r\n")
        else:
            made[name] = value if _SECRET.search(name) else _guessed(value)
    return made


def parsed(option: str, text: str, where: str = "") -> Any:
    """A JSON text that was given for an option."""
    try:
        return _loaded(text)
    except ValueError as error:
        raise InvalidError([Problem(f"/{option}", f"{where}{text[:40]!r} is not JSON: {error}")]) from None


def priority(text: str | None) -> int | str | None:
    """0..10 or a name; the server knows the names."""
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() else text


def read_text(option: str, path: Path) -> str:
    """A file's text; ``-`` is standard input."""
    try:
        if str(path) == "-":
            return sys.stdin.read()
        return path.expanduser().read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidError([Problem(f"/{option}", f"{path} is not text in UTF-8")]) from None
    except OSError as error:
        raise InvalidError([Problem(f"/{option}", f"{path} cannot be read: {error.strerror}")]) from error


def messages_in(option: str, text: str) -> Iterator[Any]:
    """The messages in a text: one JSON object, an array of them, ``{"messages": [...]}``, or one a line."""
    text = text.removeprefix("\ufeff").strip()
    try:
        whole = _loaded(text)
    except ValueError as error:
        lines = [line for line in text.split("\n") if line.strip()]  # not at U+2028, which JSON may hold
        if len(lines) < 2:
            raise InvalidError([Problem(f"/{option}", f"not JSON: {error}")]) from None
        for number, line in enumerate(lines, 1):
            try:
                yield _loaded(line)
            except ValueError as wrong:
                raise InvalidError([Problem(f"/{option}", f"line {number} is not JSON: {wrong}")]) from None
        return
    if isinstance(whole, dict) and isinstance(whole.get("messages"), list):
        defaults = whole.get("defaults") or {}
        yield from ({**defaults, **one} if isinstance(one, dict) else one for one in whole["messages"])
    elif isinstance(whole, list):
        yield from whole
    else:
        yield whole


def _loaded(text: str) -> Any:
    """What a JSON text says; the same bounds as those of the server, which would say no a moment later."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        names = [name for name, _ in members]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"'{twice[:60]}' stands twice in its object")
    return made


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number that JSON knows")


def _guessed(value: str) -> Any:
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if _WHOLE.fullmatch(value) else value
