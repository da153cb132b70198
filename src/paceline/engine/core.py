"""The parts of the engine, put together once, and the few steps that need several of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from paceline.channels.base import Channel
from paceline.clock import Clock
from paceline.engine.attempts import Attempts
from paceline.engine.directory import Directory
from paceline.engine.dispatcher import Dispatcher
from paceline.engine.events import EventBus
from paceline.engine.figures import Figures
from paceline.engine.gates import Gates
from paceline.engine.happenings import Happenings
from paceline.engine.intake import Intake
from paceline.engine.loop_watch import LoopWatch
from paceline.engine.outlook import Outlook
from paceline.engine.places import Places
from paceline.engine.secrets import Vault
from paceline.engine.suspects import Suspects
from paceline.engine.threads import ThreadPool
from paceline.engine.upkeep import Upkeep
from paceline.model.errors import InvalidError
from paceline.model.ids import IdMaker, to_text
from paceline.model.messages import Entry, FlowKey, HandedOver, NewMessage, Settlement
from paceline.model.nodes import EVERY_PARTITION, partition_of, partition_of_flow
from paceline.model.states import State
from paceline.model.wide import Wide
from paceline.pacing.agenda import Agenda
from paceline.pacing.circuit import Circuit
from paceline.pacing.lane import Account
from paceline.pacing.scopes import Scopes
from paceline.pacing.settle import LONGEST_WAIT_MS
from paceline.pacing.windows import NEVER
from paceline.stores.base import Document, Store, StoredMessage

log = structlog.get_logger("paceline")

_PENDING = int(State.PENDING)

PROGRESS = 10_000
"""Messages whose progress is remembered."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is told by the settings: calls under way at most, trace retention and the longest flood
    wait in milliseconds.
    """

    in_flight: int = 2000
    trace_ms: int = 7 * 86_400_000
    longest_wait_ms: int = LONGEST_WAIT_MS


class Core:
    """Everything that the verbs act on."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        clock: Clock,
        vault: Vault,
        chance: Callable[[], float],
        check_url: Callable[[str], str | None],
        options: Options,
    ) -> None:
        """Nothing runs yet."""
        self.store, self.clock, self.vault = store, clock, vault
        self.owned: frozenset[int] = EVERY_PARTITION
        """The partitions whose lanes this process decides about."""
        self.ids = IdMaker()
        self.directory = Directory(channels)
        self.agenda = Agenda(Scopes(clock.now))
        self.gates = Gates(store, self.agenda, self.directory, clock, chance)
        self.bus = EventBus(clock.now() * 1000)
        self.figures = Figures(clock)
        self.happenings = Happenings(self.bus, self.figures)
        self.attempts = Attempts(self.directory, clock, chance)
        self.attempts.longest_wait_ms = options.longest_wait_ms
        self.dispatcher = Dispatcher(
            store, self.agenda, clock, self.attempts, self.happenings, options.in_flight
        )
        self.suspects = Suspects(self.dispatcher, self.happenings)
        self.loop_watch = LoopWatch(clock, self.attempts.__len__)
        self.upkeep = Upkeep(
            store, clock, self.directory, self.dispatcher, self.gates.keys, self._expired, options.trace_ms
        )
        self.intake = Intake(self.directory, self._next_id, check_url, clock.ahead)
        self.outlook = Outlook(store, self.agenda, clock, self.figures)
        self.outlook.pending = self.dispatcher.pending
        self.outlook.owns = self.owns
        self.check_url = check_url
        self.threads: ThreadPool | None = None
        self.progress: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self.attempts.progress = self._progress
        self.attempts.turned = self._turned
        self.dispatcher.when_due = self._due
        self.dispatcher.when_new = self.arrived
        self.dispatcher.key_of = self.gates.keys.get
        self.dispatcher.owns = self.owns
        if store.nodes is not None:
            self.owned = frozenset()
            self.dispatcher.may_send = self.attempts.may_send = store.nodes.may_send
            self.dispatcher.places = Places(store.nodes, self.agenda)
            self.dispatcher.places.apart = lambda: self.gates.apart
        self.dispatcher.follow_up = self._callback
        self.gates.written = self.dispatcher.written

    def _next_id(self, now: int) -> int:
        return self.ids.next(now)

    def owns(self, flow: int) -> bool:
        """Whether this process decides about the lane of a flow."""
        return partition_of_flow(flow) in self.owned

    def owns_lane(self, lane: str) -> bool:
        """Whether this process decides about a lane."""
        return partition_of(lane) in self.owned

    async def change_wide(
        self, limits: Sequence[Wide], dropped: Sequence[str], act: Callable[[], Awaitable[None]],
        put: Sequence[Document] = (), removed: tuple[str, str, str] | None = None,
    ) -> None:  # fmt: skip
        """Put or remove a document that says something about wide limits, then bring it into force here by `act`.

        Where several nodes share the store it counts by it from the same commit on.
        """
        # Who asked may go away: what the store has is to be in force here as well.
        await asyncio.shield(asyncio.ensure_future(self._change_wide(limits, dropped, act, put, removed)))

    async def _change_wide(
        self, limits: Sequence[Wide], dropped: Sequence[str], act: Callable[[], Awaitable[None]],
        put: Sequence[Document], removed: tuple[str, str, str] | None,
    ) -> None:  # fmt: skip
        nodes, places = self.store.nodes, self.dispatcher.places
        if nodes is None or places is None:
            if put:
                await self.store.put(put)
            if removed:
                await self.store.remove(*removed)
            await act()
            return
        self.agenda.hold()  # nothing goes by what is in force until then
        try:
            revision, _ = await nodes.set_wide(limits, dropped, self.clock.now(), put, removed)
            await act()
            places.changed(revision)
        finally:
            self.agenda.let_go()

    async def know(self, flows: Iterable[int]) -> None:
        """Find out about flows that other nodes made, or whose first message is on disk a moment before we hear of it."""
        unknown = {flow for flow in flows if flow not in self.gates.keys}
        if unknown:
            nodes = self.store.nodes
            found = await (nodes.keys_of(sorted(unknown)) if nodes is not None else self.store.flow_keys())
            self.gates.keys.update(found)

    def flow_key(self, row: StoredMessage) -> FlowKey:
        """The flow of a stored message."""
        return self.gates.keys[row.flow]

    def arrived(self, new: Sequence[tuple[NewMessage, FlowKey]]) -> None:
        """New messages are on disk: tell whoever decides about them."""
        keys = self.gates.keys
        due = expires = NEVER
        for row, key in new:
            if row.flow not in keys:
                keys[row.flow] = key
            if row.state == _PENDING:
                entry = Entry(row.turn, row.id, row.expires_at, row.recipient, row.group)
                self.dispatcher.arrived(row.flow, key, entry)
            elif row.due_at < due:
                due = row.due_at
            if row.expires_at is not None and row.expires_at < expires:
                expires = row.expires_at
        if due < NEVER:
            self.upkeep.scheduled_at(due)
        if expires < NEVER:
            self.upkeep.expires_at(expires)
        self.happenings.added([row for row, _ in new])

    def _due(self, moment: int) -> None:
        if moment <= self.clock.now():
            self.upkeep.expires_at(moment + self.clock.ahead())
        self.upkeep.due_at(moment)

    def _expired(self, rows: list[StoredMessage]) -> None:
        for row in rows:
            if row.due_at <= (row.finished_at or 0):  # it was due, so it stood in line
                self.dispatcher.pending[row.flow] = max(0, self.dispatcher.pending[row.flow] - 1)
            self.happenings.ended(row.id, State.EXPIRED, row.tenant, row.queue, row.account or row.sender)

    def _turned(self, message: HandedOver, account: Account, before: Circuit | None) -> None:
        """A run of failures began or ended, or the account's circuit opened or closed: the latter is told."""
        circuit = account.circuit
        opened = circuit is not None and circuit.is_open
        was_open = before is not None and before.is_open
        if opened or was_open:
            self.happenings.turned(account.id, message.tenant, circuit if opened else None)
        if opened is not was_open:
            code = circuit.code if circuit is not None else None
            log.warning(
                "provider is down" if opened else "provider is up again", account=account.id, code=code
            )

    def _progress(self, message: HandedOver, percent: float, step: str) -> None:
        bounded = max(0.0, min(100.0, float(percent)))
        self.progress[message.id] = {"percent": bounded, "step": str(step)[:200]}
        self.progress.move_to_end(message.id)
        if len(self.progress) > PROGRESS:
            self.progress.popitem(last=False)
        self.happenings.progress(message, bounded, str(step)[:200])

    def _callback(self, message: HandedOver, made: Settlement) -> tuple[NewMessage, FlowKey] | None:
        """The message that tells the sender's address how it ended; stored in the same commit as the ending."""
        if made.state in (State.PENDING, State.RETRYING) or message.callback_url is None:
            return None
        payload = {
            "type": "message." + State(made.state).label,
            "data": {
                "id": to_text(message.id), "state": State(made.state).label, "attempts": made.attempts,
                "reference": made.reference, "code": made.code, "text": made.text,
            },
        }  # fmt: skip
        body = {
            "channel": "webhook", "to": message.callback_url, "payload": payload, "queue": "callback",
            "source": f"callback:{to_text(message.id)}",
        }  # fmt: skip
        try:
            prepared = self.intake.prepare(body, message.tenant, self.clock.now())
        except InvalidError as error:  # the address was allowed when it was taken in and is not any more
            log.warning("no call-back", message=to_text(message.id), reason=str(error))
            return None
        return prepared.row, prepared.flow
