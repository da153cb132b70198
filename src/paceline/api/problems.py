"""Refusals as `application/problem+json` (RFC 9457): what happened, and which field is wrong."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from paceline.api.answers import PRIVATE, PROBLEM, Answer, encode, header_list
from paceline.engine.keys import DeniedError
from paceline.model.errors import ConflictError, InvalidError, NotFoundError, Problem, UnavailableError

_log = structlog.get_logger("paceline.api")

KINDS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("malformed", "The request cannot be read"),
    401: ("no-key", "A valid key is needed"),
    403: ("forbidden", "This key may not do that"),
    404: ("not-found", "There is no such thing"),
    405: ("method", "This address does not take that method"),
    408: ("too-slow", "The request did not arrive in time"),
    409: ("conflict", "It contradicts what is stored"),
    413: ("too-large", "The request is too large"),
    415: ("content-type", "That type of content is not taken here"),
    421: ("elsewhere", "Another node answers that"),
    422: ("invalid", "The input is not valid"),
    429: ("too-many", "Too many requests"),
    500: ("internal", "Something went wrong here"),
    503: ("unavailable", "The store cannot be used now"),
}
"""Status -> (last part of the type, title)."""


class RefusedError(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[Problem] = (), headers: Mapping[str, str] | None = None,
        *, lingers: bool = False,
    ) -> None:  # fmt: skip
        """`lingers`: the request's body was not read to its end."""
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.lingers = lingers
        super().__init__(detail)


class ClientGoneError(Exception):
    """The client left before its request was complete: there is nobody to answer."""


def invalid(field: str, problem: str) -> RefusedError:
    """422 for one field or parameter; `field` is a JSON pointer."""
    return RefusedError(422, f"{field}: {problem}", [Problem(field, problem)])


def body_of(status: int, detail: str, errors: Sequence[Problem] = (), **more: Any) -> dict[str, Any]:
    """The members of a problem."""
    kind, title = KINDS[status]
    problem = {"type": f"urn:paceline:problem:{kind}", "title": title, "status": status, "detail": detail}
    if errors:
        problem["errors"] = list(errors)
    return problem | more


def answer_to(error: Exception) -> Answer:
    """What a client hears of an error. One that nobody foresaw gets an incident id that is also in the log."""
    refused = _refusal(error)
    if refused is None:
        incident = secrets.token_hex(8)
        _log.error("incident", incident=incident, exc_info=error)
        detail = f"Nothing more can be said here. The log says more under incident {incident}."
        return Answer(500, encode(body_of(500, detail, incident=incident)), (PROBLEM, *PRIVATE))
    body = encode(body_of(refused.status, refused.detail, refused.errors))
    return Answer(
        refused.status, body, (PROBLEM, *PRIVATE, *header_list(refused.headers)), lingers=refused.lingers
    )


def _refusal(error: Exception) -> RefusedError | None:
    match error:
        case RefusedError():
            return error
        case InvalidError():
            return RefusedError(422, _summary(error.problems), error.problems)
        case DeniedError():
            return RefusedError(403, str(error))
        case NotFoundError():
            return RefusedError(404, str(error))
        case ConflictError():
            return RefusedError(409, str(error))
        case UnavailableError():
            return RefusedError(503, str(error), headers={"retry-after": "1"})
        case _:
            return None


def _summary(problems: Sequence[Problem]) -> str:
    if len(problems) == 1:
        return f"{problems[0].field or 'the body'}: {problems[0].problem}"
    return f"{len(problems)} things are wrong; see 'errors'"
