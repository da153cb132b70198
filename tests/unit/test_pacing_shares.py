"""How partitions are shared: every partition has one owner in the end, evenly, and nothing moves without need."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from paceline.model.nodes import PARTITIONS
from paceline.pacing.shares import TOGETHER, Overdue, Share, next_gift, share_of

Owners = list[str | None]


def settled(owners: Owners, senders: list[str]) -> tuple[Owners, int]:
    """Everybody does its part of one plan, made from one view; the owners after it, and how many moved."""
    after, moved = list(owners), 0
    for node in senders:
        share = share_of(node, owners, senders)
        for number in share.take:
            assert owners[number] is None
            assert after[number] is None, "two nodes take one partition"
            after[number] = node
        for number, to in share.offers:
            assert owners[number] == node, "it offers what is not its own"
            assert to in senders
            after[number] = to
            moved += 1
    return after, moved


def counts(owners: Owners, senders: list[str]) -> list[int]:
    return [owners.count(node) for node in senders]


views = st.integers(1, 9).flatmap(
    lambda many: st.tuples(
        st.just([f"n{number}" for number in range(many)]),
        st.lists(
            st.sampled_from([None, *(f"n{number}" for number in range(many))]),
            min_size=PARTITIONS,
            max_size=PARTITIONS,
        ),
    )
)


def test_the_first_node_takes_everything() -> None:
    assert share_of("a", [None] * 64, ["a"]) == Share(tuple(range(64)))


def test_a_second_node_is_offered_half_and_takes_nothing_by_itself() -> None:
    owners: Owners = ["a"] * 64
    assert share_of("b", owners, ["a", "b"]) == Share()
    assert [to for _, to in share_of("a", owners, ["a", "b"]).offers] == ["b"] * 32


def test_a_node_that_does_not_send_gets_nothing() -> None:
    assert share_of("c", [None] * 64, ["a", "b"]) == Share()


def test_what_a_silent_node_still_owns_is_left_alone() -> None:
    owners: Owners = [*["gone"] * 20, *["a"] * 22, *["b"] * 22]
    assert share_of("a", owners, ["a", "b"]) == Share()
    assert share_of("b", owners, ["a", "b"]) == Share()


@given(views)
def test_one_plan_is_enough_for_an_even_and_whole_share(view: tuple[list[str], Owners]) -> None:
    senders, owners = view
    after, _ = settled(owners, senders)
    assert None not in after
    assert max(counts(after, senders)) - min(counts(after, senders)) <= 1
    assert settled(after, senders) == (after, 0), "it does not come to rest"


@given(views)
def test_no_more_partitions_move_than_an_even_share_takes(view: tuple[list[str], Owners]) -> None:
    senders, owners = view
    _, moved = settled(owners, senders)
    least, more = divmod(PARTITIONS, len(senders))
    sizes = sorted(counts(owners, senders), reverse=True)
    need = sum(max(0, size - least - (place < more)) for place, size in enumerate(sizes))
    assert moved <= need


@given(views, st.integers(0, 8))
def test_when_a_node_dies_only_its_partitions_find_another_owner(
    view: tuple[list[str], Owners], which: int
) -> None:
    senders, owners = view
    before = settled(owners, senders)[0]
    dead = senders[which % len(senders)]
    left = [node for node in senders if node != dead]
    if not left:
        return
    freed: Owners = [None if owner == dead else owner for owner in before]
    after, moved = settled(freed, left)
    assert moved == 0
    assert all(new == old for new, old in zip(after, before, strict=True) if old != dead)


# What lies free for too long


def test_a_free_partition_is_overdue_after_a_look_and_forgotten_when_it_is_taken() -> None:
    overdue = Overdue(0.5)
    assert overdue.seen([None, "a"], 10.0) == {}
    assert overdue.seen([None, "a"], 10.4) == {}
    assert overdue.seen([None, None], 10.6) == {0: 1}
    assert overdue.seen(["b", None], 11.2) == {1: 1}
    assert overdue.seen([None, None], 11.3) == {1: 1}


@given(st.integers(1, 70), st.integers(0, PARTITIONS - 1))
def test_what_the_named_node_does_not_take_soon_anybody_may(many: int, number: int) -> None:
    senders = [f"n{each:02}" for each in range(many)]
    owners: Owners = [senders[each % many] for each in range(PARTITIONS)]
    owners[number] = None
    helping = [
        {node for node in senders if number in share_of(node, owners, senders, {number: looks}).take}
        for looks in range(1, 9)
    ]
    assert len(helping[0]) <= 3, "everybody runs for it at once"
    assert all(less <= more for less, more in itertools.pairwise(helping))
    assert helping[-1] == set(senders)


def test_those_that_own_least_help_first_and_not_all_of_them_with_the_same() -> None:
    senders = [f"n{each:02}" for each in range(10)]
    owners: Owners = [None if number < 4 else "n00" for number in range(PARTITIONS)]
    helping = [
        {node for node in senders if number in share_of(node, owners, senders, {number: 1}).take}
        for number in range(4)
    ]
    assert all("n00" not in nodes for nodes in helping)
    assert len(set.union(*helping)) > 3


# What is given away next


def test_quiet_partitions_are_given_first_and_a_busy_one_goes_alone() -> None:
    offers = [(number, "b") for number in range(10)]
    mine = range(20)
    assert next_gift(offers, mine, {}, []) == (frozenset(range(TOGETHER)), "b")
    assert next_gift(offers, mine, {0: 1, 1: 2}, [2]) == (frozenset(range(3, 11)), "b")
    assert next_gift(offers, mine, dict.fromkeys(range(20), 3) | {5: 1}, []) == (frozenset([5]), "b")
    assert next_gift(offers, mine, {}, mine) == (frozenset(), "b")


def test_no_more_is_given_to_a_node_than_the_plan_says() -> None:
    offers = [(1, "c"), (2, "b"), (3, "b")]
    assert next_gift(offers, range(5), {}, []) == (frozenset([0]), "c")
