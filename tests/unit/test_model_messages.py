"""Names that every node has to agree on, and errors that say what to mend."""

from collections import Counter

import msgspec

from paceline.model.errors import InvalidError, Problem
from paceline.model.messages import FlowKey, account_id, lane_key
from paceline.model.nodes import EVERY_PARTITION, PARTITIONS, partition_of, partition_of_flow

KEY = FlowKey("t/chat/p", "tenant", "campaign", "queue", 5, "t/a")


def test_a_flow_has_the_same_number_on_every_node_and_in_every_release() -> None:
    assert KEY.number == 1116684904394698120
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


def test_all_flows_of_a_lane_are_in_its_partition_and_lanes_are_spread() -> None:
    lanes = [f"t/chat/p{number}" for number in range(2000)]
    for lane in lanes:
        flow = msgspec.structs.replace(KEY, lane=lane, campaign="other")
        assert partition_of_flow(flow.number) == partition_of(lane)
    assert partition_of("t/chat/p") == 8
    found = Counter(map(partition_of, lanes))
    assert set(found) == EVERY_PARTITION
    assert max(found.values()) < 2 * 2000 / PARTITIONS
