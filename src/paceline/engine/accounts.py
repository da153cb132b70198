"""What people do with accounts: set, look, pause, probe, test."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from paceline.channels.base import SendingAccount
from paceline.engine.account_documents import KIND, AccountReader, account_view, from_document, to_document
from paceline.engine.core import Core
from paceline.engine.keys import Caller
from paceline.engine.messages import Messages
from paceline.engine.outlook import reason_view
from paceline.engine.serial import Serial
from paceline.engine.views import error_view, time_or_none
from paceline.model import checks
from paceline.model.accounts import DEFAULT_TENANT, AccountSpec
from paceline.model.errors import ConflictError, InvalidError, NotFoundError, Problem, SchemaError
from paceline.model.messages import AccountNote
from paceline.model.nodes import EVERY_PARTITION, partition_of, partition_of_flow
from paceline.model.outcomes import Accepted, AccountStopped
from paceline.model.states import State
from paceline.pacing import forecast
from paceline.pacing.lane import Account
from paceline.pacing.windows import NEVER
from paceline.stores.base import Document, Filter

log = structlog.get_logger("paceline.accounts")

PROBE_S = 15.0
LATELY_MS = 60_000
BUILT_IN_CONCURRENCY = 64
_CURSOR = re.compile(f"{checks.NAME}/{checks.NAME}", re.ASCII)
"""The name of an account and of its owner: where the next page begins."""


class Accounts:
    """The verbs of accounts."""

    def __init__(self, core: Core, messages: Messages) -> None:
        """`messages` sends the test message."""
        self._core = core
        self._messages = messages
        self._reader = AccountReader(core.directory.channels)
        self._changes = Serial()

    async def load(self) -> None:
        """Read all accounts from the store, and make one for each channel that needs none of its own.

        One whose secrets cannot be decrypted is left out, and its messages are held until it is set again: the
        others are not to suffer from it.
        """
        core = self._core
        for document in await core.store.documents(KIND):
            try:
                core.directory.set_account(from_document(document, core.directory.channels, core.vault))
            except SchemaError as error:
                log.error("an account is left out", account=document.name, reason=str(error))  # noqa: TRY400 - the reason says it all
        for channel in core.directory.channels.values():
            spec = AccountSpec(
                owner=DEFAULT_TENANT, name=channel.name, channel=channel.name, concurrency=BUILT_IN_CONCURRENCY,
                shared=True,
            )  # fmt: skip
            if not channel.needs_account and spec.id not in core.directory.accounts:
                core.directory.set_account(spec)

    async def put(self, caller: Caller, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Add or replace an account; its messages and its history stay.

        Raises:
            InvalidError: the body is wrong.
        """
        caller.must("admin")
        if not isinstance(body, Mapping):
            raise InvalidError([Problem("", "must be an object")])
        async with self._changes.of(f"{caller.own}/{name}"):
            await self._put(caller, name, body)
        return await self.get(caller, name)

    async def _put(self, caller: Caller, name: str, body: Mapping[str, Any]) -> None:
        core = self._core
        old = core.directory.accounts.get(f"{caller.own}/{name}")
        spec = self._reader.read(caller.own, name, body, old)
        if old is not None and old.lane != spec.lane:
            self._must_be_here(old, spec)
        if old is None:
            await self._must_be_over(spec)
        await self._keep(spec)
        if old is not None and old.lane != spec.lane:
            if await self._waiting(old):
                core.directory.set_account(old)
                await core.store.put([self._document(old)])
                raise ConflictError(
                    f"messages wait for '{name}' in pool '{old.pool}' of channel {old.channel}; "
                    "move or cancel them before you change its channel or pool"
                )
            core.gates.remove_account(old)
        await self._brought_in(spec, renewed=old is not None)

    def _must_be_here(self, old: AccountSpec, spec: AccountSpec) -> None:
        """Two nodes would have to count the calls of one account at the same time."""
        core = self._core
        if core.store.nodes is not None and core.owned != EVERY_PARTITION:
            raise ConflictError(
                f"'{old.name}' cannot go from pool '{old.pool}' of channel {old.channel} to '{spec.pool}' of "
                f"{spec.channel} while several nodes share the work: make another account, or stop the others first"
            )

    async def _must_be_over(self, spec: AccountSpec) -> None:
        """The same for one that was deleted a moment ago: its node may not have heard of that yet."""
        core = self._core
        if core.store.nodes is None or core.owned == EVERY_PARTITION:
            return
        recent = await core.store.occupancy(core.clock.now() - LATELY_MS, [(spec.id, 1)])
        others = [each for each in recent if partition_of_flow(each.flow) != partition_of(spec.lane)]
        if others or await core.store.count(Filter(account=(spec.id,), state=(State.PROCESSING,))):
            raise ConflictError(
                f"an account '{spec.name}' was sending in another pool less than a minute ago: wait a minute, or take "
                "another name"
            )

    async def _brought_in(self, spec: AccountSpec, *, renewed: bool) -> None:
        """New settings hold, where this node decides about the account."""
        core = self._core
        if not core.owns_lane(spec.lane):
            return
        gate = await core.gates.set_account(spec)
        if renewed:
            await self._renewed(spec, gate)
        core.dispatcher.wake()

    async def follow(self, owner: str, name: str, document: Document | None) -> None:
        """Another node changed or removed (None) an account."""
        core = self._core
        async with self._changes.of(f"{owner}/{name}"):
            old = core.directory.accounts.get(f"{owner}/{name}")
            spec = None
            if document is not None:
                try:
                    spec = from_document(document, core.directory.channels, core.vault)
                except SchemaError as error:
                    log.error("an account is left out", account=name, reason=str(error))  # noqa: TRY400 - as above
            if old is not None and (spec is None or spec.lane != old.lane):
                core.gates.remove_account(old)
            if spec is None:
                core.directory.drop_account(f"{owner}/{name}")
                return
            core.directory.set_account(spec)
            same = old is not None and msgspec.structs.replace(old, paused=spec.paused) == spec
            if same and (gate := core.gates.account(spec.id)) is not None:
                await self._paused(spec, gate)
            elif not same:
                await self._brought_in(spec, renewed=old is not None)

    async def _paused(self, spec: AccountSpec, gate: Account) -> None:
        core = self._core
        core.gates.apply_pause(gate, spec)
        if not spec.paused:
            self._hasten(spec, gate)
        if not spec.paused and gate.stopped:
            await self._clear_stop(spec, gate)
        core.agenda.touched(core.agenda.lane(spec.lane), gate)
        core.dispatcher.wake()

    async def _renewed(self, spec: AccountSpec, gate: Account) -> None:
        """New settings may mend what the provider refused: let it try again."""
        channel = self._core.directory.channels[spec.channel]
        await channel.forget(SendingAccount(spec.owner, spec.name, spec.settings))
        self._hasten(spec, gate)
        if gate.stopped:
            await self._clear_stop(spec, gate)

    def _hasten(self, spec: AccountSpec, gate: Account) -> None:
        """Somebody says that it may work again: find out at once."""
        if gate.circuit is not None and gate.rule is not None:
            gate.circuit.hasten(self._core.clock.now(), gate.rule)
            self._core.agenda.touched(self._core.agenda.lane(spec.lane), gate)
            self._core.dispatcher.wake()

    async def _clear_stop(self, spec: AccountSpec, gate: Account) -> None:
        await self._core.store.settle((), [AccountNote(spec.id, stopped="")], (), (), self._core.clock.now())
        gate.stopped = ""
        self._core.agenda.touched(self._core.agenda.lane(spec.lane), gate)

    def _document(self, spec: AccountSpec) -> Any:
        core = self._core
        return to_document(spec, core.directory.channels.get(spec.channel), core.vault, core.clock.now())

    async def _keep(self, spec: AccountSpec) -> None:
        await self._core.store.put([self._document(spec)])
        self._core.directory.set_account(spec)

    async def _waiting(self, spec: AccountSpec) -> int:
        if self._core.store.nodes is not None:  # other nodes may have made flows
            self._core.gates.keys.update(await self._core.store.flow_keys())
        pinned = {number for number, key in self._core.gates.keys.items() if key.account == spec.id}
        live = (1, 2, 3, 4)
        return sum(t.count for t in await self._core.store.tallies() if t.flow in pinned and t.state in live)

    def _spec(self, caller: Caller, name: str) -> AccountSpec:
        spec = self._core.directory.find_account(caller.own, name)
        if spec is None:
            near = checks.suggestion(
                name, [s.name for s in self._core.directory.accounts.values() if caller.sees(s.owner)]
            )
            raise NotFoundError(f"there is no account '{name[:60]}'{near}")
        return spec

    def _own(self, caller: Caller, name: str) -> AccountSpec:
        spec = self._spec(caller, name)
        if not caller.sees(spec.owner):
            raise NotFoundError(f"the account '{name[:60]}' is shared with you, not yours")
        return spec

    async def get(self, caller: Caller, name: str) -> dict[str, Any]:
        """One account with its live status.

        Raises:
            NotFoundError: there is none of that name for the caller.
        """
        return await self._status(caller, self._spec(caller, name))

    async def list(self, caller: Caller, cursor: str | None, limit: int) -> dict[str, Any]:
        """A page of accounts by name.

        Raises:
            InvalidError: a cursor that is not one of ours.
        """
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise InvalidError([Problem("/cursor", "is not a cursor of this list")])
        seen = sorted(
            (s for s in self._core.directory.accounts.values() if caller.sees(s.owner) or s.shared),
            key=lambda s: (s.name, s.owner),
        )
        if cursor is not None:
            seen = [s for s in seen if f"{s.name}/{s.owner}" > cursor]
        page = seen[:limit]
        items = [await self._status(caller, spec) for spec in page]
        return {"items": items, "next": f"{page[-1].name}/{page[-1].owner}" if len(seen) > limit else None}

    async def _status(self, caller: Caller, spec: AccountSpec) -> dict[str, Any]:
        core = self._core
        view = account_view(spec, core.directory.channels.get(spec.channel))
        if not caller.sees(spec.owner):
            view["settings"] = {}
        gate = core.gates.account(spec.id)
        if gate is None and not core.owns_lane(spec.lane):
            elsewhere = {
                "kind": "elsewhere",
                "text": "another node sends for it and knows more",
                "until": None,
                "ahead": None,
            }
            state = "paused" if spec.paused or not spec.enabled else "ready"
            return view | {"state": state, "until": None, "reasons": [elsewhere], "waiting": 0}
        if gate is None:
            return view | {"state": "paused", "until": None, "reasons": [], "waiting": 0}
        now = core.clock.now()
        reasons = forecast.gate_reasons(gate, now)
        waiting = self._own_waiting(spec)
        typical = core.figures.sends
        duration = round(typical.sum / typical.total) if typical.total else 0
        last = forecast.moment_of([gate], waiting - 1, now, duration) if waiting else None
        opens = gate.opens(now)
        return view | {
            "state": _state(gate, spec, reasons),
            "until": time_or_none(opens) if now < opens < NEVER else None,
            "reasons": [reason_view(reason) for reason in reasons],
            "usage": [
                {"limit": str(w.limit), "used": w.used(now), "maximum": w.maximum} for w in gate.windows
            ],
            "quota_left": {q.period: q.left(now) for q in gate.quotas} or None,
            "working_rate": None,
            "in_flight": gate.flying,
            "waiting": waiting,
            "eta_last": time_or_none(last),
        }

    def _own_waiting(self, spec: AccountSpec) -> int:
        lane = self._core.agenda.lanes.get(spec.lane)
        if lane is None:
            return 0
        pending = self._core.dispatcher.pending
        return sum(pending.get(number, 0) for number in lane.pinned.get(spec.id, ()))

    async def delete(self, caller: Caller, name: str) -> None:
        """Forget an account. Messages pinned to it are held until it is back or they are moved.

        Raises:
            NotFoundError: there is none of that name.
        """
        caller.must("admin")
        core = self._core
        async with self._changes.of(self._own(caller, name).id):
            spec = self._own(caller, name)
            await core.store.remove(KIND, spec.owner, spec.name)
            core.directory.drop_account(spec.id)
            core.gates.remove_account(spec)

    async def pause(self, caller: Caller, name: str) -> dict[str, Any]:
        """Send nothing more through the account until `resume`; survives a restart."""
        return await self._set_paused(caller, name, paused=True)

    async def resume(self, caller: Caller, name: str) -> dict[str, Any]:
        """Send again; also after the provider had refused the account."""
        return await self._set_paused(caller, name, paused=False)

    async def _set_paused(self, caller: Caller, name: str, *, paused: bool) -> dict[str, Any]:
        caller.must("operator")
        core = self._core
        async with self._changes.of(self._own(caller, name).id):
            spec = msgspec.structs.replace(self._own(caller, name), paused=paused)
            await self._keep(spec)
            gate = core.gates.account(spec.id)
            if gate is not None:
                await self._paused(spec, gate)
        core.bus.publish(
            "account-status", {"account": spec.name, "state": "paused" if paused else "ready"},
            tenant=spec.owner, account=spec.id,
        )  # fmt: skip
        return await self.get(caller, name)

    async def probe(self, caller: Caller, name: str) -> dict[str, Any]:
        """Ask the provider whether the account works, without sending anything."""
        caller.must("operator")
        spec = self._own(caller, name)
        core = self._core
        channel = core.directory.channels.get(spec.channel)
        if channel is None:
            raise ConflictError(f"this process has no channel '{spec.channel}'; start one that has it")
        outcome = await channel.probe(SendingAccount(spec.owner, spec.name, spec.settings), PROBE_S)
        if outcome is None:
            return {
                "account": name,
                "ok": None,
                "detail": f"channel {spec.channel} cannot be probed; send a test message",
            }
        gate = core.gates.account(spec.id)
        if isinstance(outcome, Accepted):
            if gate is not None:
                self._hasten(spec, gate)
            if gate is not None and gate.stopped:
                await self._clear_stop(spec, gate)
                core.dispatcher.wake()
            if gate is None and not core.owns_lane(spec.lane):
                await core.store.put([self._document(spec)])  # its node hears of that and lets it try again
            return {"account": name, "ok": True, "detail": "the provider accepts the account"}
        if isinstance(outcome, AccountStopped) and gate is not None:
            gate.stopped = f"{outcome.code}: {outcome.text}"
            await core.store.settle(
                (), [AccountNote(spec.id, stopped=gate.stopped)], (), (), core.clock.now()
            )
        code, text = getattr(outcome, "code", None), getattr(outcome, "text", None)
        return {"account": name, "ok": False, "error": error_view(type(outcome).__name__, code, text)}

    async def test(self, caller: Caller, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one message now, most urgent, under the limits; answers it once it ended, or as it is after 20 s."""
        caller.must("sender")
        spec = self._spec(caller, name)
        if not isinstance(body, Mapping):
            raise InvalidError([Problem("", 'must be an object like {"to": ..., "text": ...}')])
        problems = [
            Problem(at, what)
            for at, what in checks.unknown_fields(body, ("to", "text", "subject", "payload"))
        ]
        if problems:
            raise InvalidError(problems)
        message = {**body, "channel": spec.channel, "account": spec.name, "priority": 10, "source": "test"}
        receipt = await self._messages.submit(caller, message)
        return await self._messages.wait(receipt.id, 20) or await self._messages.get(caller, receipt.id)


def _state(gate: Account, spec: AccountSpec, reasons: list[forecast.Reason]) -> str:
    if gate.paused or not spec.enabled:
        return "paused"
    kinds = {reason.kind for reason in reasons}
    for kind, state in (
        ("stopped", "unhealthy"),
        ("circuit-open", "unhealthy"),
        ("flood-wait", "flooded"),
        ("quota", "over-quota"),
        ("limit", "limited"),
        ("slow-start", "limited"),
    ):
        if kind in kinds:
            return state
    return "ready"
