"""What a node knows of places that it shares: its own calls, what the store told it, and when to ask again."""

from paceline.model.limits import Limit
from paceline.pacing.places import (
    AGAIN_MS,
    AT_ONCE,
    LONGEST_MS,
    REST_MS,
    YIELD_EVERY_MS,
    SharedWindow,
    Sharing,
)
from paceline.pacing.windows import NEVER

NOW = 1_000_000


def shared(maximum: int, span_ms: int, nodes: int = 1, *, keyed: bool = False) -> SharedWindow:
    sharing = Sharing()
    sharing.nodes = nodes
    return SharedWindow(Limit(maximum, span_ms), sharing, keyed=keyed)


def test_alone_it_is_a_window_like_any_other() -> None:
    window = shared(2, 1000)
    for _ in range(2):
        assert window.opens(NOW) <= NOW
        window.take()
    assert window.opens(NOW) == NEVER
    window.finish(NOW + 10)
    assert window.opens(NOW + 10) == NOW + 1010
    assert (window.used(NOW + 1009), window.used(NOW + 1010)) == (2, 1)
    window.withdraw()
    assert (window.opens(NOW + 1010), window.left) == (0, 2)


def test_it_waits_for_the_moment_that_it_was_told() -> None:
    window = shared(3, 1000)
    window.tell([NOW + 200, NOW + 300, NOW + 300], NOW)
    assert window.opens(NOW) == NOW + 200
    assert window.opens(NOW + 200) <= NOW + 200
    window.take()
    assert window.opens(NOW + 200) == NOW + 300
    assert window.left == 0


def test_where_nobody_knows_until_when_it_asks_again_and_with_few() -> None:
    window = shared(1000, 1000)
    window.tell([], NOW)
    assert (window.known(NOW), window.opens(NOW)) == (NEVER, NOW + AGAIN_MS)
    assert window.opens(NOW + AGAIN_MS) <= NOW + AGAIN_MS
    assert window.left == AT_ONCE
    for _ in range(AT_ONCE):
        window.take()
    assert window.opens(NOW + AGAIN_MS) == NOW + 2 * AGAIN_MS


def test_a_single_recipient_is_asked_for_less_and_less_often() -> None:
    window, moment, pauses = shared(1, 0, keyed=True), NOW, []
    for _ in range(8):
        window.tell([], moment)
        pauses.append(window.opens(moment) - moment)
        moment += pauses[-1]
        assert window.opens(moment) <= moment
    assert pauses == [50, 100, 200, 400, 800, LONGEST_MS, LONGEST_MS, LONGEST_MS]


def test_who_has_a_fair_share_leaves_the_places_of_others_to_them_for_a_moment() -> None:
    window = shared(4, 1000, nodes=2)
    window.tell([NOW + 100] * 4, NOW)
    assert window.opens(NOW) == NOW + 100
    for _ in range(2):
        window.take()
    window.tell([NOW + 100] * 2, NOW)
    assert window.opens(NOW) == NOW + 100 + AGAIN_MS


def test_who_has_more_than_a_share_lets_others_go_first_now_and_then() -> None:
    def ends(nodes: int) -> list[int]:
        window = shared(8, 1000, nodes)
        for _ in range(8):
            window.take()
        for _ in range(8):
            window.finish(NOW)
        return list(window.ends)

    assert ends(1) == [NOW + 1000] * 8
    assert ends(2) == [NOW + 1000] * 6 + [NOW + 1000 + REST_MS] * 2  # half of the four that are too many


def test_it_lets_them_go_first_again_after_a_while() -> None:
    window = shared(1, 0, nodes=2)
    rests, moment = [], NOW
    for _ in range(200):
        window.take()
        moment += 50
        window.finish(moment)
        while window.opens(moment) > moment:
            rests.append(moment)
            moment = window.opens(moment)
    assert len(rests) == (moment - NOW) // YIELD_EVERY_MS + 1


def test_a_copy_is_played_forward_alone() -> None:
    window = shared(2, 1000, nodes=2)
    window.tell([NOW + 100], NOW)
    twin = window.copy()
    twin.occupy(NOW + 500)
    assert (window.known(NOW), len(window.ends)) == (NOW + 100, 1)
    assert isinstance(twin, SharedWindow)
    assert twin.others == window.others == 1
