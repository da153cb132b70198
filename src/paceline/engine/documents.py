"""Queues, wide limits and templates as JSON: read from what people send, kept as documents, loaded at start.

(Accounts have secrets and schemas of their own: `account_documents`.)
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from paceline.engine.core import Core
from paceline.engine.directory import Template
from paceline.engine.gates import rule_scope
from paceline.model import checks
from paceline.model.accounts import QueueSpec, Retention, default_queues
from paceline.model.backoff import parse_backoff, print_backoff
from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, Problem, SchemaError
from paceline.model.limits import Limit, parse_limit
from paceline.pacing.scopes import EACH, Rule
from paceline.stores.base import Document

QUEUE, LIMIT, TEMPLATE = "queue", "limit", "template"
MAX_CONCURRENCY = 100_000
MAX_KEPT = 1_000_000_000
SCOPES = ("global", "tenant", "queue", "channel", "recipient", "group")

_QUEUE_FIELDS = ("concurrency", "max_attempts", "backoff", "timeout", "retention")
_RETENTION_FIELDS = ("completed", "failed", "count")
_encode = msgspec.json.Encoder().encode


async def load(core: Core) -> None:
    """Bring queues, wide limits and templates into force; the default queues are stored on the first start.

    Raises:
        SchemaError: a stored row cannot be read.
    """
    directory = core.directory
    stored = await core.store.documents(QUEUE)
    directory.queues = default_queues()
    if not stored:
        now = core.clock.now()
        await core.store.put([queue_document(spec, now) for spec in directory.queues.values()])
    for document in stored:
        directory.queues[document.name] = read_stored_queue(document)
    for document in await core.store.documents(LIMIT):
        rule = read_stored_rule(document)
        directory.rules[rule.name] = rule
    for document in await core.store.documents(TEMPLATE):
        template = read_template(document)
        directory.templates[template.tenant, template.name] = template


def read_stored_queue(document: Document) -> QueueSpec:
    """The queue of a stored row.

    Raises:
        SchemaError: it cannot be read; so with the others.
    """
    spec: QueueSpec = _decoded(document, _stored_queue)
    return spec


def read_stored_rule(document: Document) -> Rule:
    """The wide limit of a stored row."""
    rule: Rule = _decoded(document, lambda d, body: read_rule(d.tenant, d.name, body))
    return rule


def read_template(document: Document) -> Template:
    """The template of a stored row."""
    template: Template = _decoded(document, lambda d, body: Template(d.tenant, d.name, **body))
    return template


def _decoded(document: Document, read: Callable[[Document, Any], Any]) -> Any:
    try:
        return read(document, msgspec.json.decode(document.body))
    except (InvalidError, msgspec.DecodeError, TypeError) as error:
        raise SchemaError(f"the stored {document.kind} '{document.name}' cannot be read: {error}") from None


# -- queues


def read_queue(name: str, body: Any, base: QueueSpec) -> QueueSpec:
    """A queue's settings; what the body leaves out is as in `base`.

    Raises:
        InvalidError: every problem found.
    """
    draft = Draft(body, _QUEUE_FIELDS)
    draft.take_name(name)
    given = {
        "concurrency": draft.take(
            "concurrency", _or_none(lambda v: checks.check_integer(v, 1, MAX_CONCURRENCY))
        ),
        "max_attempts": draft.take("max_attempts", lambda v: checks.check_integer(v, 1, 100)),
        "backoff": draft.take("backoff", parse_backoff),
        "timeout_ms": draft.take(
            "timeout", lambda v: parse_duration(v, least=100, most=checks.MAX_TIMEOUT_MS)
        ),
    }
    retention = base.retention
    if "retention" in draft.body:
        retention = _read_retention(draft, base.retention)
    draft.check()
    changes = {field: value for field, value in given.items() if value is not msgspec.UNSET}
    return msgspec.structs.replace(base, name=name, retention=retention, **changes)


def _read_retention(draft: "Draft", base: Retention) -> Retention:
    part = Draft(draft.body["retention"], _RETENTION_FIELDS, "/retention")
    given = {
        "completed_ms": part.take("completed", _or_none(parse_duration)),
        "failed_ms": part.take("failed", _or_none(parse_duration)),
        "completed_count": part.take("count", _or_none(lambda v: checks.check_integer(v, 0, MAX_KEPT))),
    }
    draft.problems += part.problems
    changes = {field: value for field, value in given.items() if value is not msgspec.UNSET}
    return msgspec.structs.replace(base, **changes)


def queue_view(spec: QueueSpec) -> dict[str, Any]:
    """A queue as JSON; `read_queue` reads the settings in it back."""
    kept = spec.retention
    return {
        "name": spec.name,
        "concurrency": spec.concurrency,
        "max_attempts": spec.max_attempts,
        "backoff": print_backoff(spec.backoff),
        "timeout": _seconds(spec.timeout_ms),
        "retention": {
            "completed": _seconds(kept.completed_ms),
            "failed": _seconds(kept.failed_ms),
            "count": kept.completed_count,
        },
        "paused": spec.paused,
    }


def queue_document(spec: QueueSpec, now: int) -> Document:
    """The row to store."""
    body = queue_view(spec)
    del body["name"]
    return Document(QUEUE, "", spec.name, _encode(body).decode(), now)


def _stored_queue(document: Document, body: dict[str, Any]) -> QueueSpec:
    paused = bool(body.pop("paused", False))
    return read_queue(document.name, body, QueueSpec(name=document.name, paused=paused))


# -- wide limits


def rule_name(owner: str, name: str) -> str:
    """How a wide limit is named inside: two tenants may use the same name. `owner` is empty for the installation."""
    return f"{owner}/{name}" if owner else name


def read_rule(owner: str, name: str, body: Any) -> Rule:
    """A wide limit from ``{"scope": {...}, "limit": "100/s"}``.

    Raises:
        InvalidError: every problem found.
    """
    draft = Draft(body, ("scope", "limit"))
    draft.take_name(name)
    limit = draft.need("limit", parse_limit)
    scope = _read_scope(draft) if draft.is_object else {}
    draft.check()
    return Rule(rule_name(owner, name), limit, **scope)


def _read_scope(draft: "Draft") -> dict[str, str]:
    if "scope" not in draft.body:
        draft.problem("/scope", 'is missing; for example {"queue": "sms"} or {"global": true}')
        return {}
    if isinstance(draft.body["scope"], Mapping) and "account" in draft.body["scope"]:
        draft.problem("/scope/account", "limits of one account are set with PUT /api/v1/accounts/NAME")
        return {}
    part = Draft(draft.body["scope"], SCOPES, "/scope")
    everything = part.take("global", checks.check_boolean)
    scope = {name: part.take(name, checks.check_name) for name in ("tenant", "queue", "channel")}
    scope["recipient"] = part.take("recipient", lambda v: checks.check_label(v, 2048))
    scope["group"] = part.take("group", checks.check_label)
    given = {name: value for name, value in scope.items() if value is not msgspec.UNSET}
    if not part.problems:
        if everything is True and given:
            part.problem("", "everything (global) cannot be narrowed; leave global out, or the others")
        elif everything is not True and not given:
            part.problem("", "must say what is limited: " + ", ".join(SCOPES))
    draft.problems += part.problems
    return given


def rule_document(owner: str, name: str, rule: Rule, now: int) -> Document:
    """The row to store."""
    body = {"scope": rule_scope(rule), "limit": str(rule.limit)}
    return Document(LIMIT, owner, name, _encode(body).decode(), now)


# -- templates


def template_view(template: Template) -> dict[str, Any]:
    """A template as JSON."""
    return msgspec.structs.asdict(template)


def template_document(template: Template, now: int) -> Document:
    """The row to store."""
    body = {"subject": template.subject, "text": template.text, "html": template.html}
    return Document(TEMPLATE, template.tenant, template.name, _encode(body).decode(), now)


# -- reading


class Draft:
    """A body being read: each field is taken once, and what is wrong with it is noted under its pointer."""

    __slots__ = ("_under", "body", "is_object", "problems")

    def __init__(self, body: Any, known: tuple[str, ...], under: str = "") -> None:
        """`under` is the pointer of the body itself; fields that are not `known` are problems."""
        self.is_object = isinstance(body, Mapping)
        self.body: Mapping[str, Any] = body if self.is_object else {}
        self._under = under
        self.problems: list[Problem] = []
        if not self.is_object:
            self.problem("", "must be an object")
        for at, what in checks.unknown_fields(self.body, known):
            self.problem(at, what)

    def take(self, name: str, check: Callable[[Any], Any]) -> Any:
        """The checked value; UNSET when it is not there or wrong."""
        if name not in self.body:
            return msgspec.UNSET
        try:
            return check(self.body[name])
        except ValueError as error:
            self.problem(checks.pointer(name), str(error))
            return msgspec.UNSET

    def need(self, name: str, check: Callable[[Any], Any]) -> Any:
        """The checked value of a field that has to be there."""
        if name not in self.body and self.is_object:
            self.problem(checks.pointer(name), "is missing")
        return self.take(name, check)

    def take_name(self, name: str) -> None:
        """Check the name that stands in the address."""
        try:
            checks.check_name(name)
        except ValueError as error:
            self.problems.append(Problem("/name", str(error)))

    def problem(self, field: str, text: str) -> None:
        """Note what is wrong."""
        self.problems.append(Problem(self._under + field, text))

    def check(self) -> None:
        """Refuse the body when anything was wrong.

        Raises:
            InvalidError: with every problem.
        """
        if self.problems:
            raise InvalidError(self.problems)


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


__all__ = [
    "EACH", "LIMIT", "QUEUE", "TEMPLATE", "Draft", "Limit", "load", "queue_document", "queue_view", "read_queue",
    "read_rule", "rule_document", "rule_name", "template_document", "template_view",
]  # fmt: skip
