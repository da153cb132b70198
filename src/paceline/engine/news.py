"""Settings that another node changed, brought into force on this one."""

import msgspec
import structlog

from paceline.engine import account_documents, documents, installation
from paceline.engine.accounts import Accounts
from paceline.engine.core import Core
from paceline.engine.holds import Holds
from paceline.engine.keys import Keys
from paceline.model.errors import SchemaError
from paceline.stores.base import Document
from paceline.stores.nodes import Changed

log = structlog.get_logger("paceline.nodes")


class News:
    """Applies one change after the other, as the store has them."""

    def __init__(self, core: Core, accounts: Accounts, keys: Keys, holds: Holds) -> None:
        """The parts of the engine that keep settings."""
        self._core, self._accounts, self._keys, self._holds = core, accounts, keys, holds

    async def apply(self, change: Changed) -> None:
        """Bring a change into force. One that cannot be read is told, and left out as at a start."""
        document = None
        if change.body is not None:
            document = Document(change.kind, change.tenant, change.name, change.body, change.updated_at)
        try:
            await self._apply(change, document)
        except (SchemaError, msgspec.MsgspecError) as error:
            reason = str(error)
            log.warning(
                "a change by another node cannot be read", kind=change.kind, name=change.name, reason=reason
            )

    async def _apply(self, change: Changed, document: Document | None) -> None:
        match change.kind:
            case account_documents.KIND:
                await self._accounts.follow(change.tenant, change.name, document)
            case documents.QUEUE:
                self._queue(change.name, document)
            case documents.LIMIT:
                await self._limit(change, document)
            case documents.TEMPLATE:
                place = (change.tenant, change.name)
                if document is None:
                    self._core.directory.templates.pop(place, None)
                else:
                    self._core.directory.templates[place] = documents.read_template(document)
            case "key":
                await self._keys.load()
            case installation.KIND if document is not None:
                self._holds.follow(installation.read([document]))
            case _:
                pass  # what only its own node reads

    def _queue(self, name: str, document: Document | None) -> None:
        core = self._core
        if document is None:
            return
        spec = documents.read_stored_queue(document)
        core.directory.queues[name] = spec
        core.gates.set_queue(spec)
        core.dispatcher.wake()
        core.bus.publish("queue-status", {"queue": name, "paused": spec.paused}, queue=name)

    async def _limit(self, change: Changed, document: Document | None) -> None:
        core = self._core
        if document is None:
            name = documents.rule_name(change.tenant, change.name)
            if core.directory.rules.pop(name, None) is not None:
                core.gates.drop_rule(name)
        else:
            rule = documents.read_stored_rule(document)
            core.directory.rules[rule.name] = rule
            await core.gates.set_rule(rule)
        core.dispatcher.wake()
