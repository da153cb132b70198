"""The life of a message. Everything that decides which state may follow which lives in this file.

`TRANSITIONS` is the whole machine. The diagram in `docs/lifecycle.md` is generated from it, every SQL
statement that changes a state names its arrow from it, and a guard compares the three.
"""

from enum import IntEnum, StrEnum

from paceline.model.errors import IllegalTransitionError


class State(IntEnum):
    """Where a message is. The numbers are what the stores keep; the names are what people see."""

    SCHEDULED = 1  # due later, never tried
    PENDING = 2  # due: goes as soon as every limit allows
    PROCESSING = 3  # handed over to a provider call, durably marked
    RETRYING = 4  # due later, tried before
    COMPLETED = 5  # the provider took it
    FAILED = 6  # refused for good, or out of attempts
    CANCELLED = 7  # withdrawn before it was sent
    EXPIRED = 8  # its time passed before it could be sent
    UNCERTAIN = 9  # may have been sent; a person or a receipt settles it

    @property
    def label(self) -> str:
        """The name used in every interface, for example ``"pending"``."""
        return self.name.lower()


class Event(StrEnum):
    """What may happen to a message."""

    DUE = "due"  # its moment came
    RESCHEDULE = "reschedule"  # a person moved its moment
    HAND_OVER = "hand-over"  # given to an account, durable before the call
    ACCEPT = "accept"  # the provider took it
    RETRY = "retry"  # it failed for now, or must wait: again later
    GIVE_BACK = "give-back"  # certainly not sent: back in line at once
    REFUSE = "refuse"  # the provider refused it for good, or attempts ran out
    LOSE = "lose"  # the call ended without telling whether it was taken
    CANCEL = "cancel"  # a person withdrew it
    EXPIRE = "expire"  # its `expires_at` passed
    REVIVE = "revive"  # a person wants it sent again
    CONFIRM = "confirm"  # an uncertain one turned out to be sent
    DENY = "deny"  # an uncertain one turned out not to be sent and shall not be


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.SCHEDULED: {
        Event.DUE: State.PENDING,
        Event.RESCHEDULE: State.SCHEDULED,
        Event.REVIVE: State.PENDING,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.PENDING: {
        Event.HAND_OVER: State.PROCESSING,
        Event.RESCHEDULE: State.SCHEDULED,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.PROCESSING: {
        Event.ACCEPT: State.COMPLETED,
        Event.RETRY: State.RETRYING,
        Event.GIVE_BACK: State.PENDING,
        Event.REFUSE: State.FAILED,
        Event.LOSE: State.UNCERTAIN,
        Event.EXPIRE: State.EXPIRED,
    },
    State.RETRYING: {
        Event.DUE: State.PENDING,
        Event.RESCHEDULE: State.SCHEDULED,
        Event.REVIVE: State.PENDING,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.COMPLETED: {},
    State.FAILED: {Event.REVIVE: State.PENDING},
    State.CANCELLED: {Event.REVIVE: State.PENDING},
    State.EXPIRED: {Event.REVIVE: State.PENDING},
    State.UNCERTAIN: {
        Event.CONFIRM: State.COMPLETED,
        Event.DENY: State.FAILED,
        Event.REVIVE: State.PENDING,
    },
}

WAITING = frozenset({State.SCHEDULED, State.PENDING, State.RETRYING})
ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED})
BY_LABEL = {state.label: state for state in State}


def after(state: State, event: Event) -> State:
    """The state that follows `state` when `event` happens.

    Raises:
        IllegalTransitionError: the machine has no such arrow; nothing was changed.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransitionError(state.label, event.value) from None


def sources(event: Event) -> frozenset[State]:
    """Every state from which `event` is legal."""
    return frozenset(state for state, arrows in TRANSITIONS.items() if event in arrows)
