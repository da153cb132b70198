"""The diagram in docs/lifecycle.md is the machine in model/states.py. Written anew by running this file."""

import re
from pathlib import Path

from paceline.model.states import ENDED, TRANSITIONS, WAITING, Event, State

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md"
BEGIN = "<!-- diagram: begin (generated, see the end of this page) -->\n"
END = "<!-- diagram: end -->\n"
NEW = (State.PENDING, State.SCHEDULED)


def diagram() -> str:
    """The machine as a mermaid state diagram; events that lead the same way share an arrow."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {state.label}: send" for state in NEW]
    for state, arrows in TRANSITIONS.items():
        targets: dict[State, list[str]] = {}
        for event, target in arrows.items():
            targets.setdefault(target, []).append(event.value)
        lines += [
            f"    {state.label} --> {target.label}: {', '.join(events)}" for target, events in targets.items()
        ]
    lines += [f"    {state.label} --> [*]" for state in State if state in ENDED]
    return "\n".join([*lines, "```"]) + "\n"


def with_diagram(page: str) -> str:
    """The page with the diagram between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + diagram() + END + rest.split(END)[1]


def rows(heading: str) -> dict[str, str]:
    """The first two cells of each row of the table under a heading."""
    part = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return {row[1]: row[2] for row in re.finditer(r"^\| `([\w\-]+)` \| ([^|]*) \|", part, re.MULTILINE)}


def test_the_diagram_is_drawn_from_the_machine() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_diagram(page), "write it anew: python -m tests.guards.test_lifecycle_diagram"


def test_the_diagram_has_every_arrow() -> None:
    arrows = re.findall(r"^    (\w+) --> (\w+): (.*)$", diagram(), re.MULTILINE)
    drawn = {(a, event, b) for a, b, events in arrows for event in events.split(", ")}
    assert drawn == {(s.label, e.value, t.label) for s, to in TRANSITIONS.items() for e, t in to.items()}


def test_every_state_is_described_with_its_kind() -> None:
    kinds = {
        state: "waiting" if state in WAITING else "ending" if state in ENDED else "between" for state in State
    }
    assert rows("States") == {state.label: kind for state, kind in kinds.items()}


def test_every_event_is_described_with_where_it_is_legal() -> None:
    told = {event: set(re.findall(r"\w+", cell)) for event, cell in rows("Events").items()}
    legal = {e.value: {s.label for s, arrows in TRANSITIONS.items() if e in arrows} for e in Event}
    assert told == legal


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text("utf-8")), "utf-8")
