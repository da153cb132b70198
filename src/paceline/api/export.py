"""Messages as a file: JSON lines without loss, or CSV that a spreadsheet may open safely."""

import csv
import io
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Self

from starlette.types import Receive, Scope, Send

from paceline.api.answers import PRIVATE, encode

COLUMNS: Final = (
    "id", "tenant", "state", "queue", "channel", "account", "pool", "to", "priority", "subject", "text", "html",
    "kind", "source", "group", "campaign", "batch", "attempts", "created_at", "scheduled_at", "started_at",
    "finished_at", "expires_at", "error_class", "error_code", "error_text", "idempotency_key", "trace_id",
    "metadata", "payload",
)  # fmt: skip
_TYPES: Final = {"csv": b"text/csv; charset=utf-8", "jsonl": b"application/x-ndjson"}
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_PHONE: Final = re.compile(r"\+[0-9]{3,20}", re.ASCII)

Page = Sequence[Mapping[str, Any]]


class Export:
    """A download; an ASGI application."""

    def __init__(self, first: Page | None, rest: AsyncIterator[Page], form: str) -> None:
        """`first` was already fetched, so that what is wrong with the filter was answered as a problem."""
        self._first = first
        self._rest = rest
        self._form = form

    @classmethod
    async def begin(cls, pages: AsyncIterator[Page], form: str) -> Self:
        """Fetch the first page."""
        return cls(await anext(pages, None), pages, form)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send page after page; the client's own pace holds it back."""
        name = f'attachment; filename="messages.{self._form}"'.encode()
        headers = [(b"content-type", _TYPES[self._form]), (b"content-disposition", name), *PRIVATE]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        write = csv_rows if self._form == "csv" else json_lines
        if self._form == "csv":
            await send({"type": "http.response.body", "body": csv_line(COLUMNS), "more_body": True})
        if self._first is not None:
            await send({"type": "http.response.body", "body": write(self._first), "more_body": True})
            async for page in self._rest:
                await send({"type": "http.response.body", "body": write(page), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_lines(page: Page) -> bytes:
    """One message a line."""
    return b"".join(encode(message) + b"\n" for message in page)


def csv_rows(page: Page) -> bytes:
    """One message a row, in the order of COLUMNS."""
    return b"".join(csv_line([cell(_value(message, column)) for column in COLUMNS]) for message in page)


def csv_line(cells: Sequence[str]) -> bytes:
    """One row."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode()


def _value(message: Mapping[str, Any], column: str) -> Any:
    if column.startswith("error_"):
        return (message.get("error") or {}).get(column.removeprefix("error_"))
    value = message.get(column)
    if column == "to" and isinstance(value, list):
        return ", ".join(map(str, value))
    return value


def cell(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula; a plain phone number stays as it is."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return encode(value).decode()
    text = value if isinstance(value, str) else encode(value).decode()
    if _FORMULA.match(text) and not _PHONE.fullmatch(text):
        return "'" + text
    return text
