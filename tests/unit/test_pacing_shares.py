"""How partitions are shared: every partition has one owner in the end, evenly, and nothing moves without need."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.model.nodes import PARTITIONS
from paceline.pacing.shares import Share, share_of

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
