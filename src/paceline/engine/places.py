"""Limits wider than a lane where several nodes share the store: it has the last word about each hand-over.

The gates of this node are the first filter. What the store refuses goes back to its place, at no cost to the message,
and its gate hears when there may be room again.
"""

from collections.abc import Callable, Sequence

import structlog

from paceline.model.accounts import QueueSpec
from paceline.model.messages import Mark
from paceline.model.wide import Need, Told, Wide
from paceline.pacing.agenda import Agenda
from paceline.pacing.gates import SharedGate
from paceline.pacing.lane import Release
from paceline.pacing.places import SharedWindow, Sharing
from paceline.pacing.scopes import Rule, place_name
from paceline.stores.nodes import Handed, NodeStore

log = structlog.get_logger("paceline.places")


class Places:
    """Hands over with places, and keeps the gates in step with what the store says about them."""

    def __init__(self, store: NodeStore, agenda: Agenda) -> None:
        """Nothing is known of the limits yet."""
        self._store, self._agenda = store, agenda
        self.sharing = agenda.scopes.sharing = Sharing()
        self.apart: Callable[[], int] = lambda: 0
        """By how many milliseconds times of other nodes may be off."""
        self.ring: Callable[[], None] = lambda: None
        """Asks for a look at what other nodes changed."""
        self.refusals = 0
        self.heard = 0
        """The number of the last refusal that the gates know of."""
        self._revision = 0
        self._stale = False

    async def hand_over(
        self, released: Sequence[Release], marks: Sequence[Mark], now: int, heard: int
    ) -> Handed:
        """Make hand-overs durable that get all of their places; `heard` as it was when they were released."""
        needs: list[Sequence[Need]] = []
        wanted = False
        for release in released:
            its = [gate.need for gate in release.gates if gate.need is not None] if release.gates else ()
            wanted = wanted or bool(its)
            needs.append(its)
        return await self._store.hand_over(
            marks, needs if wanted else (), self._revision, now, self.apart(), heard
        )

    def refused(self, released: Sequence[Release], handed: Handed, now: int) -> None:
        """The store refused some of these, whose places in this node's gates are free again."""
        self.refusals += len(handed.refused)
        self.heard = max(self.heard, handed.number)
        if handed.stale:
            self._wait_for_news()
            return
        gates = {gate.need: gate for release in released for gate in release.gates if gate.need is not None}
        for told in handed.told:
            gate = gates.get((told.name, told.key))
            if gate is not None:
                self._tell(gate, told, now)

    def _tell(self, gate: SharedGate, told: Told, now: int) -> None:
        for window in gate.windows:
            if isinstance(window, SharedWindow):
                window.tell(told.moments, now)
        self._agenda.stir(gate)

    # -- which limits there are

    def _wait_for_news(self) -> None:
        """Another node changed a limit: release nothing until this one knows it."""
        if not self._stale:
            self._stale = True
            self._agenda.hold()
        self.ring()

    def follow(self, revision: int) -> bool:
        """Every change of limits up to this revision is in force here; whether that was waited for."""
        self._revision = max(self._revision, revision)
        waited, self._stale = self._stale, False
        if waited:
            self._agenda.let_go()
        return waited

    def changed(self, revision: int) -> None:
        """This node itself made that change, and has it in force."""
        if revision == self._revision + 1:  # else there is one of another node before it, which a look finds
            self._revision = revision

    def share(self, nodes: int) -> None:
        """So many nodes send."""
        self.sharing.nodes = max(1, nodes)

    async def agree(self, rules: Sequence[Rule], queues: Sequence[QueueSpec], after: int, now: int) -> None:
        """At the start: the store counts by what is configured. It differs only after a move or an upgrade of a store.

        What is configured was read when `after` was the newest revision; if there is another one by now, a look finds it.
        """
        wanted = {wide.name: wide for wide in [*map(wide_of_rule, rules), *wides_of_queues(queues)]}
        revision, there = await self._store.wide()
        known = {wide.name: wide for wide in there}
        if wanted != known and revision == after:
            fresh = [wide for name, wide in wanted.items() if known.get(name) != wide]
            gone = [name for name in known if name not in wanted]
            newest, _ = await self._store.set_wide(fresh, gone, now, after=after)
            log.info("wide limits are counted by the store", set=len(fresh), dropped=len(gone))
            if newest == after + 1:
                after = newest
        self.follow(after)


def wide_of_rule(rule: Rule) -> Wide:
    """A limit as the store counts it."""
    return Wide(
        place_name("limit", rule.name), rule.limit.maximum, rule.limit.span_ms, rule.tenant, rule.queue,
        rule.channel, rule.recipient, rule.group,
    )  # fmt: skip


def wides_of_queues(queues: Sequence[QueueSpec]) -> list[Wide]:
    """Their bounds of calls under way, as the store counts them."""
    return [
        Wide(place_name("queue", queue.name), queue.concurrency, 0, queue=queue.name)
        for queue in queues
        if queue.concurrency is not None
    ]
