"""Names that every node has to agree on, and errors that say what to mend."""

import msgspec

from paceline.model.errors import InvalidError, Problem
from paceline.model.messages import FlowKey, account_id, lane_key

KEY = FlowKey("t/chat/p", "tenant", "campaign", "queue", 5, "t/a")


def test_a_flow_has_the_same_number_on_every_node_and_in_every_release() -> None:
    assert KEY.number == 1116684904394698150
    assert 0 <= KEY.number < 1 << 63


def test_each_part_of_a_flows_key_makes_another_number() -> None:
    others = [
        msgspec.structs.replace(KEY, **{name: 6 if name == "priority" else "other"})
        for name in KEY.__struct_fields__
    ]
    assert len({KEY.number, *(other.number for other in others)}) == len(others) + 1


def test_accounts_and_lanes_are_named_with_their_owner() -> None:
    assert account_id("shop", "a1") == "shop/a1"
    assert lane_key("shop", "smtp", "main") == "shop/smtp/main"


def test_an_error_names_every_problem_at_once() -> None:
    error = InvalidError([Problem("/to", "is missing"), Problem("", "must be an object")])
    assert str(error) == "/to: is missing; /: must be an object"
    assert len(error.problems) == 2
