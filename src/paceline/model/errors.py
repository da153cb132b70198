"""One tree of errors. Each says what happened and what to do; none is raised for the provider's answers."""

from collections.abc import Sequence

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with an input.

    Attributes:
        field: JSON pointer of the field, for example ``"/to"``; empty for the whole body.
        problem: what is wrong and what would be right, in one sentence.
    """

    field: str
    problem: str


class PacelineError(Exception):
    """Something Paceline refuses or cannot do."""


class InvalidError(PacelineError):
    """The input is wrong; nothing was changed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep every problem, so that a caller can mend all of them at once."""
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.field or '/'}: {p.problem}" for p in self.problems))


class NotFoundError(PacelineError):
    """There is no such thing, or it belongs to somebody else."""


class ConflictError(PacelineError):
    """The request contradicts what is stored."""


class IllegalTransitionError(ConflictError):
    """The state machine has no such arrow."""

    def __init__(self, state: str, event: str) -> None:
        """Name the state and the event that does not apply to it."""
        self.state = state
        self.event = event
        super().__init__(f"a message that is {state} cannot take the step '{event}'")


class UnavailableError(PacelineError):
    """The store cannot take writes now; nothing was acknowledged. Try again."""


class EndedError(UnavailableError):
    """This node was ended and others have its work: nothing that it still wants to write is taken."""


class OccupiedError(PacelineError):
    """Another process owns the store."""


class SchemaError(PacelineError):
    """The store is not ours, or was written by a newer version."""
