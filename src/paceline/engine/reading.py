"""One stored message, for those who may see it: found by its public id, shown in full."""

from typing import Any

from paceline.engine.core import Core
from paceline.engine.keys import Caller
from paceline.engine.outlook import reason_view
from paceline.engine.views import attempt_view, message_view, time_or_none
from paceline.model import ids
from paceline.model.errors import NotFoundError
from paceline.stores.base import StoredMessage


async def read_message(core: Core, caller: Caller, id_: str) -> StoredMessage:
    """The message with this public id.

    Raises:
        NotFoundError: there is none, or it is another tenant's.
    """
    number = ids.from_text(id_)
    rows = await core.store.get([number]) if number is not None else []
    if not rows or not caller.sees(rows[0].tenant):
        raise NotFoundError(f"there is no message '{id_[:40]}'")
    await core.know([rows[0].flow])
    return rows[0]


async def whole_view(core: Core, row: StoredMessage) -> dict[str, Any]:
    """A message with its outlook and its journal."""
    eta, reasons = await core.outlook.of(row, core.flow_key(row))
    view = message_view(row, core.progress.get(row.id))
    view["eta"] = time_or_none(eta)
    view["why"] = [reason_view(reason) for reason in reasons]
    view["history"] = [attempt_view(each) for each in await core.store.attempts([row.id])]
    return view
