"""What of an outbox needs no database: checks of messages and URLs, statements, how much is read at once."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from paceline.config import load
from paceline.model.errors import InvalidError
from paceline.outbox import ddl, encode
from paceline.stores.outbox import LARGEST, parse_outbox, within

MESSAGE = {"channel": "smtp", "to": "ada@example.com", "text": "hi"}


def test_a_message_is_written_as_the_interface_takes_it() -> None:
    at = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
    text = encode({**MESSAGE, "scheduled_at": at, "metadata": {"order": 7}})
    assert msgspec.json.decode(text) == {
        **MESSAGE, "scheduled_at": "2030-01-02T03:04:00Z", "metadata": {"order": 7},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ({"to": "a"}, ["/channel"]),
        ({"channel": 3}, ["/channel"]),
        ({**MESSAGE, "priority": 11, "queue": "-"}, ["/priority", "/queue"]),
        ({**MESSAGE, "scheduled_at": datetime(2030, 1, 1)}, ["/scheduled_at"]),
        ({**MESSAGE, "text": object()}, [""]),
        ({**MESSAGE, "text": "\ud800"}, [""]),
        ({**MESSAGE, "text": "x" * LARGEST}, [""]),
    ],
)
def test_what_can_be_told_without_a_server_is_told_at_once(
    message: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(InvalidError) as raised:
        encode(message)
    assert sorted(problem.field for problem in raised.value.problems) == sorted(fields)


@pytest.mark.parametrize(
    ("url", "dialect", "where", "schema", "tenant", "name"),
    [
        ("sqlite:///app.db", "sqlite", "app.db", "", "default", "sqlite:///app.db"),
        ("sqlite:////var/a%20b.db?tenant=acme", "sqlite", "/var/a b.db", "", "acme",
         "sqlite:////var/a b.db?tenant=acme"),
        ("postgresql://u:secret@h:5433/app", "postgresql", "postgresql://u:secret@h:5433/app", "public", "default",
         "postgresql://u@h:5433/app"),
        ("postgres://h/app?schema=own&tenant=acme&sslmode=require", "postgresql",
         "postgresql://h/app?sslmode=require", "own", "acme", "postgresql://h/app?schema=own&tenant=acme"),
    ],
)  # fmt: skip
def test_a_url_says_where_an_outbox_is_and_whose(
    url: str, dialect: str, where: str, schema: str, tenant: str, name: str
) -> None:
    place = parse_outbox(url)
    assert (place.dialect, place.where, place.schema, place.tenant, place.name) == (
        dialect, where, schema, tenant, name,
    )  # fmt: skip
    assert "secret" not in repr(place)


@pytest.mark.parametrize(
    "url",
    ["sqlite:app.db", "sqlite:///", "sqlite:///a?schema=b", "mysql://h/a", "postgresql://h/", "postgresql://h/a?x",
     "postgresql://h/a?tenant=a%20b", "postgresql://u:secret@h/a?schema=A-b", "postgresql://u:secret@h:x/a?y"],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidError) as raised:
        parse_outbox(url)
    assert "secret" not in str(raised.value)


def test_the_statements_name_the_schema_wherever_they_name_the_table() -> None:
    text = ddl("postgresql", schema="own")
    assert text.count('"own".paceline_outbox') == 5 and ":table" not in text
    assert "pg_notify" not in ddl("postgresql", bell=False)
    assert ddl("sqlite").count("CREATE") == 2
    with pytest.raises(InvalidError):
        ddl("postgresql", schema='own"; DROP TABLE x; --')
    with pytest.raises(InvalidError):
        ddl("oracle")  # type: ignore[arg-type]  # a slip of the caller


def test_rows_are_read_up_to_a_size_but_one_at_least() -> None:
    assert within([(1, 600), (2, 300), (3, 200), (4, 1)], 1000) == ([1, 2], [])
    assert within([(1, 5000), (2, 1)], 1000) == ([1], [])
    assert within([(1, LARGEST + 1), (2, 5000), (3, 1)], 1000) == ([2], [1])
    assert within([], 1000) == ([], [])


def test_outboxes_are_settings() -> None:
    one, two = "postgresql://u:secret@h/app?schema=s", "sqlite:///app.db"
    settings = load({}, {"PACELINE_OUTBOX": f"{one} {two} {one}"})
    assert settings.outbox == (one, two)
    assert settings.shown()["outbox"]["value"] == ["postgresql://u:***@h/app?schema=s", two]
    assert load({"outbox": [two]}, {"PACELINE_OUTBOX": one}).outbox == (two,)
    with pytest.raises(InvalidError, match="must be URLs"):
        load({"outbox": ["app.db"]})
