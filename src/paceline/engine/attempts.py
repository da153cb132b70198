"""One send: hand the message to its channel, bound its time, and turn whatever happens into an outcome."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog

from paceline.channels.base import NotOursError, Outgoing, SendingAccount, may_leave, permit
from paceline.clock import Clock
from paceline.engine.deadlines import Deadlines
from paceline.engine.directory import Directory
from paceline.model.backoff import Backoff, parse_backoff
from paceline.model.ids import to_text
from paceline.model.messages import HandedOver
from paceline.model.outcomes import Accepted, Outcome, Temporary, Unknown
from paceline.pacing import circuit
from paceline.pacing.circuit import Circuit
from paceline.pacing.lane import Account, Release
from paceline.pacing.settle import LONGEST_WAIT_MS, Policy, Verdict, accept, settle, spare, withhold

PATIENCE_S = 2.0
"""How much longer than its deadline a call may take before it is cut off from outside."""
NO_METADATA: Mapping[str, Any] = {}

log = structlog.get_logger("paceline.attempts")
_decode = msgspec.json.Decoder().decode


class Ended(msgspec.Struct, gc=False):
    """A call that ended, and what follows from it."""

    message: HandedOver
    release: Release
    outcome: Outcome | None  # None: withheld, the call never began
    verdict: Verdict
    started: int
    finished: int


class Attempts:
    """The calls under way."""

    def __init__(self, directory: Directory, clock: Clock, chance: Callable[[], float]) -> None:
        """`chance` is the source of jitter."""
        self._directory = directory
        self._clock = clock
        self._chance = chance
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._deadlines = Deadlines(self._cut_off)
        self._patient = True
        self.longest_wait_ms = LONGEST_WAIT_MS
        self.may_send: Callable[[], bool] = lambda: True
        self._senders: dict[str, tuple[object, SendingAccount]] = {}
        self._policies: dict[tuple[str | None, str, str, str | None], Policy] = {}
        self.turned: Callable[[HandedOver, Account, Circuit | None], None] = lambda *_: None
        self.progress: Callable[[HandedOver, float, str], None] = lambda _message, _percent, _step: None

    def __len__(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    def begin(self, message: HandedOver, release: Release, over: Callable[[Ended], None]) -> None:
        """Start the call; `over` is called once, when it has ended."""
        task = asyncio.get_running_loop().create_task(self._run(message, release, over))
        self._tasks[message.id] = task

    async def drain(self, grace: float) -> None:
        """Let every call end by itself for `grace` seconds, or until `cut`; then cut off the rest."""
        if self._tasks and self._patient:
            await asyncio.wait(set(self._tasks.values()), timeout=grace)
        left = set(self._tasks.values())
        for task in left:
            task.cancel()
        if left:
            _, hung = await asyncio.wait(left, timeout=PATIENCE_S)
            for _ in hung:
                log.error("a call ignored its cancellation and was left behind")

    def cut(self) -> None:
        """Cut off every call now, and those that begin later when the rest is drained."""
        self._patient = False
        for task in self._tasks.values():
            task.cancel()

    def abandon(self) -> set[asyncio.Task[None]]:
        """Cut off every call: others have this node's messages. Answers what has to end before calls begin again."""
        left, self._tasks = set(self._tasks.values()), {}
        for task in left:
            task.cancel()
        return left

    async def _run(self, message: HandedOver, release: Release, over: Callable[[Ended], None]) -> None:
        started = self._clock.now()
        permit.set(self.may_send)
        try:
            may_leave()  # the process may have been stopped since it was given out
            outcome = await self._call(message)
        except NotOursError:
            outcome = None
        finally:
            self._done(message.id)
        if outcome is None:
            over(Ended(message, release, None, withhold(message, started), started, started))
            return
        finished = max(started, self._clock.ceiling())
        if isinstance(outcome, Accepted):
            if release.account.circuit is not None:
                self._tell_circuit(message, release, outcome, finished)
            verdict = accept(message, outcome, started, finished)
        else:
            verdict = self._verdict(message, release, outcome, started, finished)
        over(Ended(message, release, outcome, verdict, started, finished))

    def _done(self, message: int) -> None:
        if self._tasks.get(message) is asyncio.current_task():
            del self._tasks[message]

    def _verdict(
        self, message: HandedOver, release: Release, outcome: Outcome, started: int, finished: int
    ) -> Verdict:
        policy = self._policy(message)
        if self._tell_circuit(message, release, outcome, finished):
            spared = spare(message, outcome, started, finished, policy)
            if spared is not None:
                return spared
        return settle(self._on_our_scale(message), outcome, started, finished, policy, self._chance)

    def _tell_circuit(self, message: HandedOver, release: Release, outcome: Outcome, at: int) -> bool:
        """Tell the account's circuit how a call ended; whether it is open now."""
        account = release.account
        known, rule = account.circuit, account.rule
        if rule is None:
            return False
        made = circuit.ended(
            known, outcome, at, rule, account.concurrency, self._chance,
            trial=known is not None and release.trial is known,
        )  # fmt: skip
        if made is not known:
            account.circuit = made
            self.turned(message, account, known)
        return made is not None and made.is_open

    async def _call(self, message: HandedOver) -> Outcome:
        channel = self._directory.channels.get(message.channel)
        account = self._sender(message.account)
        if channel is None or account is None:
            text = f"channel {message.channel} or account {message.account} is gone"
            return Temporary("not-configured", text, counts=False)
        seconds = message.timeout_ms / 1000
        slot = self._deadlines.set(message.id, seconds + PATIENCE_S)
        try:
            outcome: object = await channel.send(self._outgoing(message), account, seconds)
        except asyncio.CancelledError:
            # The task ends here by settling: whoever cancelled it waits for just that.
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a call runs in a task of its own
            task.uncancel()
            return Unknown("the call was cut off before the provider answered", "cut-off")
        except (GeneratorExit, NotOursError):
            raise
        except BaseException as error:  # also SystemExit: no channel ends the process
            log.exception("channel failed", channel=message.channel, message=to_text(message.id))
            return Unknown(f"the channel failed: {_words(error)}", "channel-bug")
        finally:
            self._deadlines.over(message.id, slot)
        if not isinstance(outcome, Outcome):
            log.error("channel returned no outcome", channel=message.channel, returned=type(outcome).__name__)
            return Unknown(
                f"the channel returned {type(outcome).__name__} instead of an outcome", "channel-bug"
            )
        return outcome

    def _cut_off(self, message: int) -> None:
        task = self._tasks.get(message)
        if task is not None:
            log.warning("call exceeds its time", message=to_text(message))
            task.cancel()

    def _outgoing(self, message: HandedOver) -> Outgoing:
        content = _decode(message.content)
        to = content.get("to")
        return Outgoing(
            id=to_text(message.id),
            tenant=message.tenant,
            queue=message.queue,
            kind=message.kind,
            to=tuple(to) if isinstance(to, list) else ((message.recipient,) if message.recipient else ()),
            content=content,
            metadata=_decode(message.metadata) if message.metadata else NO_METADATA,
            number=message.number,
            trace_id=message.trace_id,
            created_at=message.created_at,
            progress=partial(self._report, message),
        )

    def _report(self, message: HandedOver, percent: float, step: str = "") -> None:
        self.progress(message, percent, step)

    def _sender(self, account: str) -> SendingAccount | None:
        spec = self._directory.accounts.get(account)
        if spec is None:
            return None
        known = self._senders.get(account)
        if known is not None and known[0] is spec:
            return known[1]
        sender = SendingAccount(spec.owner, spec.name, spec.settings)
        self._senders[account] = (spec, sender)
        return sender

    def _on_our_scale(self, message: HandedOver) -> HandedOver:
        """The message with its expiry, which is one of the wall clock, on the scale of the call's own times."""
        ahead = self._clock.ahead()
        if not ahead or message.expires_at is None:
            return message
        return msgspec.structs.replace(message, expires_at=message.expires_at - ahead)

    def _policy(self, message: HandedOver) -> Policy:
        queue = self._directory.queue(message.queue)
        key = (message.backoff, message.queue, message.channel, message.kind)
        known = self._policies.get(key)
        backoff: Backoff = parse_backoff(_decode(message.backoff)) if message.backoff else queue.backoff
        if known is not None and known.backoff == backoff:
            return known
        if len(self._policies) > 10_000:
            self._policies.clear()
        channel = self._directory.channels.get(message.channel)
        made = self._policies[key] = Policy(
            backoff,
            channel is not None and channel.may_repeat(message.kind),
            longest_wait_ms=self.longest_wait_ms,
        )
        return made


def _words(error: BaseException) -> str:
    """What an error says, even if it fails to say it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - any of its methods may fail
        return type(error).__name__
