"""Foreign text made fit to keep and to show, and the tests for characters that no field may hold."""

import re
from collections.abc import Iterable

from paceline.model.errors import Problem

LONGEST = 500
"""The longest text kept of a provider's answer, in characters."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_LINE_BREAKING = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def told(text: object, secrets: Iterable[str] = ()) -> str:
    """A provider's words in one line of at most `LONGEST` characters, with every one of `secrets` blotted out.

    Secrets go first: cutting first could leave a piece of one that no longer matches.
    """
    line = str(text)
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")
    line = _CONTROL.sub(" ", line).strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def line_problem(field: str, value: object, most: int) -> Problem | None:
    """Why `value` cannot stand in one header line: not text, a line break or control sign, or over `most` long."""
    if not isinstance(value, str):
        return Problem(field, "must be text")
    if len(value) > most:
        return Problem(field, f"must be at most {most} characters long")
    if value.isprintable():
        return None
    if _LINE_BREAKING.search(value):
        return Problem(field, "must not contain line breaks or other control characters")
    return half_character_problem(field, value)


def half_character_problem(field: str, value: str) -> Problem | None:
    """Why `value` cannot be written as UTF-8: it holds one half of a surrogate pair."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return Problem(field, "must not contain half of a surrogate pair")
    return None


def body_problem(field: str, value: object, most: int) -> Problem | None:
    """Why `value` cannot be a text body: not text, empty, over `most` characters, NUL, or half a character."""
    if not isinstance(value, str):
        return Problem(field, "must be text")
    if not value or value.isspace():
        return Problem(field, "must not be empty")
    if len(value) > most:
        return Problem(field, f"must be at most {most} characters long")
    if "\0" in value:
        return Problem(field, "must not contain NUL characters")
    return half_character_problem(field, value)
