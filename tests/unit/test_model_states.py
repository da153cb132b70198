"""Every arrow of the machine that there is, and every one that there is not."""

import pytest

from paceline.model.errors import ConflictError, IllegalTransitionError
from paceline.model.states import BY_LABEL, ENDED, TRANSITIONS, WAITING, Event, State, after, sources

# Written out a second time on purpose: a change of the table has to be meant.
LEGAL = {
    ("scheduled", "due"): "pending",
    ("scheduled", "reschedule"): "scheduled",
    ("scheduled", "revive"): "pending",
    ("scheduled", "cancel"): "cancelled",
    ("scheduled", "expire"): "expired",
    ("pending", "hand-over"): "processing",
    ("pending", "reschedule"): "scheduled",
    ("pending", "cancel"): "cancelled",
    ("pending", "expire"): "expired",
    ("processing", "accept"): "completed",
    ("processing", "retry"): "retrying",
    ("processing", "give-back"): "pending",
    ("processing", "refuse"): "failed",
    ("processing", "lose"): "uncertain",
    ("processing", "expire"): "expired",
    ("retrying", "due"): "pending",
    ("retrying", "reschedule"): "scheduled",
    ("retrying", "revive"): "pending",
    ("retrying", "cancel"): "cancelled",
    ("retrying", "expire"): "expired",
    ("failed", "revive"): "pending",
    ("cancelled", "revive"): "pending",
    ("expired", "revive"): "pending",
    ("uncertain", "confirm"): "completed",
    ("uncertain", "deny"): "failed",
    ("uncertain", "revive"): "pending",
}
EVERY = [(state, event) for state in State for event in Event]
ILLEGAL = [(state, event) for state, event in EVERY if (state.label, event.value) not in LEGAL]


@pytest.mark.parametrize(("state", "event"), LEGAL)
def test_a_legal_event_leads_where_it_should(state: str, event: str) -> None:
    assert after(BY_LABEL[state], Event(event)).label == LEGAL[state, event]


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=lambda part: part.name)
def test_an_illegal_event_raises_and_changes_nothing(state: State, event: Event) -> None:
    before = {each: dict(arrows) for each, arrows in TRANSITIONS.items()}
    with pytest.raises(IllegalTransitionError) as caught:
        after(state, event)
    assert (caught.value.state, caught.value.event) == (state.label, event.value)
    assert str(caught.value) == f"a message that is {state.label} cannot take the step '{event.value}'"
    assert isinstance(caught.value, ConflictError)
    assert before == TRANSITIONS


def test_the_table_has_every_state_and_no_arrow_but_the_legal_ones() -> None:
    assert set(TRANSITIONS) == set(State)
    assert sum(map(len, TRANSITIONS.values())) == len(LEGAL)


def test_each_state_is_waiting_or_ended_or_one_of_the_two_between() -> None:
    assert set(State) - WAITING - ENDED == {State.PROCESSING, State.UNCERTAIN}
    assert not WAITING & ENDED


def test_only_pending_messages_are_handed_over() -> None:
    assert sources(Event.HAND_OVER) == {State.PENDING}


def test_a_message_in_a_providers_hands_cannot_be_withdrawn() -> None:
    assert sources(Event.CANCEL) == WAITING


def test_what_was_sent_is_never_sent_again() -> None:
    assert TRANSITIONS[State.COMPLETED] == {}


def test_every_state_can_be_reached_from_a_new_message() -> None:
    reached = {State.SCHEDULED, State.PENDING}
    while more := {to for state in reached for to in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(State)


def test_the_numbers_that_stores_keep_do_not_change() -> None:
    assert [(state.value, state.label) for state in State] == [
        (1, "scheduled"),
        (2, "pending"),
        (3, "processing"),
        (4, "retrying"),
        (5, "completed"),
        (6, "failed"),
        (7, "cancelled"),
        (8, "expired"),
        (9, "uncertain"),
    ]
