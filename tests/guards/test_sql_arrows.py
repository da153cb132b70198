"""The SQL that changes a message's state takes only arrows that the state machine has, and says which."""

import re

import pytest

from paceline.model.states import BY_LABEL, TRANSITIONS, Event
from paceline.stores.statements import Statement, load_statements, parse_statements

DIALECTS = ["sqlite", "postgres"]
STATEMENTS = [
    pytest.param(statement, id=f"{dialect}-{statement.name}")
    for dialect in DIALECTS
    for statement in load_statements(dialect).values()
]
WITH_ARROWS = [parameter for parameter in STATEMENTS if parameter.values[0].arrows]  # type: ignore[union-attr]  # made of statements above

# The birth of a message is no arrow; everything else that writes the state of an entry is.
_WRITES_STATE = re.compile(
    r"UPDATE\s+entry\s+SET\b(?:(?!;).)*?\bstate\s*=|INSERT\s+INTO\s+entry\b(?:(?!;).)*?DO\s+UPDATE\s+SET\b(?:(?!;).)*?\bstate\s*="
    # In PostgreSQL a message has its state by the table that it is in; new ones come by COPY.
    r"|UPDATE\s+waiting\s+SET\b(?:(?!;).)*?\bstate\s*=|INSERT\s+INTO\s+(?:waiting|under_way|ended)\b",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = re.compile(r"(?:UPDATE\s+(?:entry|waiting)\s+SET\s+state\s*=\s*|SELECT id, flow, )([0-9])")


def arrows_of(statement: Statement) -> set[tuple[str, str, str]]:
    return {(arrow.source, arrow.event, arrow.target) for arrow in statement.arrows}


MACHINE = {
    (source.label, event.value, target.label) for source, arrows in TRANSITIONS.items() for event, target in arrows.items()
}  # fmt: skip


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_arrow_named_in_sql_is_in_the_machine(statement: Statement) -> None:
    assert arrows_of(statement) <= MACHINE
    assert len(arrows_of(statement)) == len(statement.arrows), "an arrow stands twice"


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_that_writes_the_state_names_its_arrows_and_no_other_does(statement: Statement) -> None:
    assert bool(_WRITES_STATE.search(statement.sql)) == bool(statement.arrows)


@pytest.mark.parametrize("statement", WITH_ARROWS)
def test_a_state_written_as_a_number_is_where_the_arrows_lead(statement: Statement) -> None:
    written = {int(number) for number in _NUMBER.findall(statement.sql)}
    assert not written or written == {BY_LABEL[arrow.target] for arrow in statement.arrows}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_sql_can_take_every_arrow_of_the_machine(dialect: str) -> None:
    named = set().union(*(arrows_of(s) for s in load_statements(dialect).values()))
    assert named == MACHINE


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("event", [Event.HAND_OVER, Event.DUE])
def test_arrows_without_a_person_or_an_answer_are_taken_by_one_statement(event: Event, dialect: str) -> None:
    takers = [s.name for s in load_statements(dialect).values() if any(a.event == event for a in s.arrows)]
    assert len(takers) == 1


@pytest.mark.parametrize("text", ["SELECT 1", "-- name: a\nSELECT 1", "-- name: a\n-- Says why."])
def test_a_file_that_breaks_the_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a needs a comment and SQL|SQL before the first name"):
        parse_statements(text)
