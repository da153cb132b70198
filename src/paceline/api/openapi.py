"""The OpenAPI 3.1 document, put together from the calls and the shapes."""

from typing import Any, Final

from paceline import __version__
from paceline.api.openapi_calls import CALLS, ONE, PARAMETERS, TAGS, Operation
from paceline.api.openapi_shapes import SHAPES
from paceline.api.problems import KINDS

_ABOUT: Final = """Every call under `/api/v1` takes a key: `Authorization: Bearer KEY`. A key has a role \
(admin > operator > sender > viewer) and belongs to a tenant or to the whole installation; what belongs to \
another tenant does not exist for it.

Times are RFC 3339 with a zone; in answers UTC with milliseconds. Durations are seconds, or text such as \
`"30s"`, `"5m"`, `"2h"`. Lists are paged: `next` is the `cursor` of the next page, and null on the last. \
Unknown fields and parameters are refused. Every failure is `application/problem+json` (RFC 9457), and \
nothing is ever half-done."""

_ERRORS: Final = {
    400: "Not JSON (or not UTF-8, nested too deep, a number out of range).",
    401: "No key, or one that is not known or was revoked.",
    403: "The key's role does not suffice, or a page of another site asks.",
    404: "There is no such thing, or it belongs to another tenant.",
    408: "The body did not arrive in time.",
    409: "It contradicts what is stored.",
    413: "Larger than the server takes.",
    415: "Another type of content than the call takes.",
    422: "The input is not valid; `errors` names every field.",
    500: "Something nobody foresaw; the log knows the incident.",
    503: "The store cannot be used now. Nothing was changed: try again after `Retry-After` seconds.",
}


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Paceline API", "version": __version__, "description": _ABOUT,
                 "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": told} for name, told in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": SHAPES,
            "parameters": {
                key: {"name": key.removeprefix("one-"), "in": "query", **rest}
                for key, rest in (PARAMETERS | {f"one-{name}": rest for name, rest in ONE.items()}).items()
            },
            "responses": {str(status): _problem(status) for status in _ERRORS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    }  # fmt: skip


def _operation(call: Operation) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(call),
        "tags": [call.tag],
        "summary": call.summary,
        "description": _description(call),
    }
    parameters = [_in_path(name) for name in call.names] + [_in_query(name, call) for name in call.query]
    if parameters:
        operation["parameters"] = parameters
    if call.body:
        operation["requestBody"] = {"required": True, "content": call.content()}
    operation["responses"] = _responses(call)
    if call.role is None:
        operation["security"] = []
    elif call.open_at_home:
        operation["security"] = [{}, {"key": []}]
    return operation


def _description(call: Operation) -> str:
    role = "No key is needed." if call.role is None else f"Role: {call.role}."
    return f"{call.told} {role}".strip()


def _operation_id(call: Operation) -> str:
    words = call.path.removeprefix("/api/v1").replace("{", "").replace("}", "").strip("/") or "start"
    return "-".join([call.method.lower(), *words.replace(".", "-").split("/")])


def _in_path(name: str) -> dict[str, Any]:
    told = (
        "Id of the message, batch or job."
        if name == "id"
        else "Name: 1 to 128 letters, digits or . _ @ : + -"
    )
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": told}


def _in_query(name: str, call: Operation) -> dict[str, Any]:
    key = f"one-{name}" if name in ONE and "state" not in call.query else name
    return {"$ref": f"#/components/parameters/{key}"}


def _responses(call: Operation) -> dict[str, Any]:
    answers = {str(status): answer.render() for status, answer in call.answers.items()}
    for status in call.errors():
        answers.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})
    return answers


def _problem(status: int) -> dict[str, Any]:
    kind, title = KINDS[status]
    example: dict[str, Any] = {
        "type": f"urn:paceline:problem:{kind}", "title": title, "status": status, "detail": _ERRORS[status],
    }  # fmt: skip
    if status == 422:
        example["errors"] = [{"field": "/to", "problem": "is missing"}]
    response: dict[str, Any] = {
        "description": _ERRORS[status],
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": example,
            }
        },
    }
    if status == 503:
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return response
