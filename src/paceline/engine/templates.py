"""Templates: a sandboxed Jinja with bounded output. A name that is not given is an error, never a blank."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateError
from jinja2 import Template as Compiled
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from paceline.engine.directory import Template

MAX_OUTPUT = 2 * 1024 * 1024
MAX_SOURCE = 512 * 1024
PARTS = ("subject", "text", "html")


class _Environment(ImmutableSandboxedEnvironment):
    """Without the ways to make a little template cost a lot."""

    intercepted_binops = frozenset({"**", "*"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not allowed in templates")
        if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise SecurityError("only numbers can be multiplied in templates")
        return super().call_binop(context, operator, left, right)


def _environment(*, escape: bool) -> _Environment:
    environment = _Environment(undefined=StrictUndefined, autoescape=escape, keep_trailing_newline=True)
    # `range` and the like let a template of thirty bytes run for hours; loops over given lists are enough.
    environment.globals.clear()
    for name in ("center", "indent", "format", "pprint", "random", "xmlattr", "batch", "slice", "wordwrap"):
        environment.filters.pop(name, None)
    return environment


_PLAIN = _environment(escape=False)
_HTML = _environment(escape=True)


@lru_cache(maxsize=512)
def _compiled(source: str, *, escape: bool) -> Compiled:
    return (_HTML if escape else _PLAIN).from_string(source)


def check_template(source: str, part: str) -> None:
    """Compile without running.

    Raises:
        ValueError: what is wrong, with the line.
    """
    if len(source) > MAX_SOURCE:
        raise ValueError(f"must be at most {MAX_SOURCE // 1024} KiB")
    try:
        _compiled(source, escape=part == "html")
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"is not a template: {error}" + (f" (line {line})" if line else "")) from None


def render(template: "Template", variables: Mapping[str, Any]) -> dict[str, str]:
    """Fill in every part that the template has.

    Raises:
        ValueError: a name is missing, or the template does what it may not.
    """
    filled = {}
    for part in PARTS:
        source = getattr(template, part)
        if source is None:
            continue
        try:
            filled[part] = _bounded(_compiled(source, escape=part == "html"), variables)
        except (TemplateError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
            raise ValueError(
                f"the {part} of template '{template.name}' cannot be filled in: {error}"
            ) from None
    return filled


def _bounded(compiled: Compiled, variables: Mapping[str, Any]) -> str:
    pieces, size = [], 0
    for piece in compiled.generate(dict(variables)):
        size += len(piece)
        if size > MAX_OUTPUT:
            raise ValueError(f"becomes larger than {MAX_OUTPUT // 1024 // 1024} MiB")
        pieces.append(piece)
    return "".join(pieces)
