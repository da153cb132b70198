"""What people do with templates: put, look, preview. Each belongs to a tenant."""

from typing import Any

from paceline.engine import documents
from paceline.engine.core import Core
from paceline.engine.directory import Template
from paceline.engine.documents import Draft
from paceline.engine.keys import Caller
from paceline.engine.templates import PARTS, check_template, render
from paceline.model import checks
from paceline.model.errors import InvalidError, NotFoundError, Problem

MAX_TEMPLATES = 10_000
MAX_VARIABLES = 500


class Templates:
    """The verbs of templates."""

    def __init__(self, core: Core) -> None:
        """`core` holds the parts of the engine."""
        self._core = core

    async def put(self, caller: Caller, name: str, body: Any) -> dict[str, Any]:
        """Add or replace a template; messages that were made from it stay as they are.

        Raises:
            InvalidError: the body is wrong, or a part is not a template.
        """
        caller.must("admin")
        core = self._core
        draft = Draft(body, PARTS)
        draft.take_name(name)
        parts = {part: _part(draft, part) for part in PARTS}
        if not draft.problems and not any(part is not None for part in parts.values()):
            draft.problem("", "has no part; give " + ", ".join(PARTS))
        draft.check()
        place = (caller.own, name)
        if place not in core.directory.templates and self._count(caller.own) >= MAX_TEMPLATES:
            raise InvalidError(
                [Problem("/name", f"there are {MAX_TEMPLATES:,} templates already; delete some first")]
            )
        template = Template(caller.own, name, parts["subject"], parts["text"], parts["html"])
        await core.store.put([documents.template_document(template, core.clock.now())])
        core.directory.templates[place] = template
        return documents.template_view(template)

    async def get(self, caller: Caller, name: str) -> dict[str, Any]:
        """One template.

        Raises:
            NotFoundError: the tenant has none of that name.
        """
        return documents.template_view(self._template(caller, name))

    async def list(self, caller: Caller) -> dict[str, Any]:
        """All templates that the caller may see."""
        seen = sorted(place for place in self._core.directory.templates if caller.sees(place[0]))
        items = [documents.template_view(self._core.directory.templates[place]) for place in seen]
        return {"items": items, "next": None}

    async def delete(self, caller: Caller, name: str) -> None:
        """Remove a template; messages that were made from it stay as they are.

        Raises:
            NotFoundError: the tenant has none of that name.
        """
        caller.must("admin")
        template = self._template(caller, name)
        await self._core.store.remove(documents.TEMPLATE, template.tenant, template.name)
        self._core.directory.templates.pop((template.tenant, template.name), None)

    async def preview(self, caller: Caller, name: str, body: Any) -> dict[str, Any]:
        """What a message made from the template with these variables would say.

        Raises:
            NotFoundError: the tenant has none of that name.
            InvalidError: a variable is missing.
        """
        template = self._template(caller, name)
        draft = Draft(body, ("variables",))
        variables = draft.take("variables", lambda v: checks.check_object(v, MAX_VARIABLES))
        draft.check()
        try:
            filled = render(template, variables or {})
        except ValueError as error:
            raise InvalidError([Problem("/variables", str(error))]) from None
        return {part: filled.get(part) for part in PARTS}

    def _template(self, caller: Caller, name: str) -> Template:
        templates = self._core.directory.templates
        template = templates.get((caller.own, name))
        if template is None:
            near = checks.suggestion(name, [n for tenant, n in templates if tenant == caller.own])
            raise NotFoundError(f"there is no template '{name[:60]}'{near}")
        return template

    def _count(self, tenant: str) -> int:
        return sum(owner == tenant for owner, _ in self._core.directory.templates)


def _part(draft: Draft, part: str) -> str | None:
    def check(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise ValueError("must be a text")
        check_template(value, part)
        return value

    found: str | None = draft.take(part, check) or None
    return found
