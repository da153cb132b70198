"""Holds every send against the limits of its account, the wide limits and the quotas that are set now."""

from collections.abc import Iterable, Mapping

import msgspec

from paceline.engine.audit_clock import Steps
from paceline.engine.audit_quotas import SETTLING_MS, QuotaWatch, quotas_of
from paceline.engine.audit_report import Check, LimitFigures
from paceline.engine.audit_windows import Watch
from paceline.engine.documents import read_rule
from paceline.model.accounts import AccountSpec, QuotaSpec
from paceline.model.durations import format_duration
from paceline.model.errors import InvalidError, SchemaError
from paceline.model.journal import Sent
from paceline.model.limits import Limit
from paceline.model.messages import FlowKey
from paceline.pacing.scopes import EACH, Rule
from paceline.stores.base import Document

SWEEP = 10_000
"""Recipients and groups that may pile up before the idle ones are looked for."""


class AccountLimits(msgspec.Struct, frozen=True):
    """What holds for an account since `changed`, the moment anything of it was last stored."""

    limits: tuple[tuple[str, Limit], ...]
    quota: QuotaSpec | None
    changed: int


def account_limits(documents: Iterable[Document]) -> dict[str, AccountLimits]:
    """The limits of every account by its id.

    Raises:
        SchemaError: a stored account cannot be read.
    """
    found = {}
    for document in documents:
        try:
            spec = msgspec.json.decode(document.body, type=AccountSpec)
        except msgspec.DecodeError as error:
            raise SchemaError(f"the stored account '{document.name}' cannot be read: {error}") from None
        limits = [(str(limit), limit) for limit in spec.limits]
        if spec.interval_ms:
            limits.append((f"interval {format_duration(spec.interval_ms)}", Limit(1, spec.interval_ms)))
        found[spec.id] = AccountLimits(tuple(limits), spec.quota, document.updated_at)
    return found


def wide_limits(documents: Iterable[Document]) -> list[tuple[Rule, int]]:
    """Every wide limit with the moment it was last set.

    Raises:
        SchemaError: a stored limit cannot be read.
    """
    found = []
    for document in documents:
        try:
            rule = read_rule(document.tenant, document.name, msgspec.json.decode(document.body))
        except (InvalidError, msgspec.DecodeError) as error:
            raise SchemaError(f"the stored limit '{document.name}' cannot be read: {error}") from None
        found.append((rule, document.updated_at))
    return found


class Limits:
    """The three checks that need only sends: arrivals in windows, occupied places, quotas."""

    def __init__(self, since: int, steps: Steps) -> None:
        """Sends handed over before `since` are history: they occupy places, and are not judged."""
        self.since, self.steps = since, steps
        self.windows = Check("windows", "no window holds more sends than its limit")
        self.places = Check("places", "a send starts only while the limit has a free place")
        self.quotas = Check("quotas", "no calendar day or month holds more sends than its quota")
        self.figures: list[LimitFigures] = []


class Judged:
    """One limit with its figures: finds out which sends were let out under it, and tells of those too many."""

    def __init__(self, limits: Limits, scope: str, text: str, limit: Limit, changed: int) -> None:
        """`changed` is when it was set."""
        self.limit, self._limits, self._changed, self._holds_from = limit, limits, changed, changed
        self.figures = LimitFigures(scope, text, limit.maximum)
        limits.figures.append(self.figures)

    def watch(self, key: str = "") -> Watch:
        """One count of this limit: its only one, or that of one recipient or group."""
        return Watch(self.limit, self.figures, self._proven, self._early, key)

    def add(self, watch: Watch, sent: Sent) -> None:
        """A send that the limit covers."""
        if sent.handed_over < self._changed:
            # There was another limit, or none: it may have let sends out for a moment longer.
            self._holds_from = self._changed + SETTLING_MS
        if sent.handed_over < self._holds_from:
            self.figures.before += 1
            watch.past(sent.started, sent.finished)
            return
        if sent.handed_over < self._limits.since:
            watch.past(sent.started, sent.finished)
            return
        self.figures.sends += 1
        watch.start(sent.started, surely_not_before(sent), sent.finished, sent.message)

    def _proven(self, count: int, messages: tuple[int, ...], at: int) -> None:
        figures = self.figures
        if self._limits.steps.unsure(at - self.limit.span_ms, at):
            return
        figures.broken += 1
        self._limits.windows.fault(
            f"{figures.scope}: {count:,} sends arrived within less than {format_duration(self.limit.span_ms)}",
            messages, at, figures.limit,
        )  # fmt: skip

    def _early(self, count: int, message: int, at: int) -> None:
        figures = self.figures
        if self._limits.steps.unsure(at - self.limit.span_ms, at):
            return
        figures.broken += 1
        self._limits.places.fault(
            f"{figures.scope}: started while {count - 1:,} of {figures.maximum:,} places were occupied",
            (message,), at, figures.limit,
        )  # fmt: skip


def surely_not_before(sent: Sent) -> int:
    """The earliest moment at which a call may have begun: of one that a crash cut off only the hand-over is known."""
    return sent.handed_over if sent.code == "crash" and sent.outcome == "Unknown" else sent.started


class AccountPass:
    """Sends account by account, each account's by start."""

    def __init__(self, limits: Limits, known: Mapping[str, AccountLimits]) -> None:
        """`known` are the limits that are set now."""
        self._limits, self._known = limits, known
        self._account = ""
        self._watches: list[tuple[Judged, Watch]] = []
        self._quotas: list[QuotaWatch] = []

    def feed(self, page: Iterable[Sent]) -> None:
        """The next sends."""
        looked = self._limits.windows.looked
        for sent in page:
            if sent.account != self._account:
                self.close()
                self._begin(sent.account)
            for judged, watch in self._watches:
                judged.add(watch, sent)
            for quota in self._quotas:
                quota.add(sent, self._limits.steps)
            looked["sends"] += 1
            if not self._watches:
                looked["sends without a limit"] += 1

    def close(self) -> None:
        """The account's sends are over."""
        for _, watch in self._watches:
            watch.close()

    def _begin(self, account: str) -> None:
        self._account = account
        self._watches, self._quotas = [], []
        limits, known = self._limits, self._known.get(account)
        limits.windows.looked["accounts"] += 1
        if known is None:
            limits.windows.looked["accounts that are built in or gone"] += 1
            return
        for text, limit in known.limits:
            judged = Judged(limits, f"account {account}", text, limit, known.changed)
            self._watches.append((judged, judged.watch()))
        self._quotas = [
            QuotaWatch(limits.quotas, limits.figures, account, quota, known.changed, limits.since)
            for quota in quotas_of(known.quota)
        ]
        limits.windows.looked["limits"] += len(known.limits)
        limits.quotas.looked["quotas"] += len(self._quotas)


class WidePass:
    """Sends of all accounts, by start, held against the wide limits."""

    def __init__(
        self, limits: Limits, rules: Iterable[tuple[Rule, int]], keys: Mapping[int, FlowKey]
    ) -> None:
        """`keys` are the flows by number."""
        self._keys = keys
        self._rules = [
            (rule, Judged(limits, f"limit {rule.name}", str(rule.limit), rule.limit, changed))
            for rule, changed in rules
        ]
        self._covering: dict[int, list[tuple[Rule, Judged]]] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._sweep_at = SWEEP
        limits.windows.looked["wide limits"] += len(self._rules)

    def feed(self, page: Iterable[Sent]) -> None:
        """The next sends."""
        for sent in page:
            for rule, judged in self._of_flow(sent.flow):
                key = _key(rule, sent)
                if key is not None:
                    judged.add(self._watch(rule, judged, key), sent)
            if len(self._watches) >= self._sweep_at:
                self._sweep(sent.started)

    def close(self) -> None:
        """There are no more sends."""
        for watch in self._watches.values():
            watch.close()

    def _of_flow(self, flow: int) -> list[tuple[Rule, Judged]]:
        found = self._covering.get(flow)
        if found is None:
            key = self._keys.get(flow)
            found = self._covering[flow] = [each for each in self._rules if key and each[0].covers(key)]
        return found

    def _watch(self, rule: Rule, judged: Judged, key: str) -> Watch:
        watch = self._watches.get((rule.name, key))
        if watch is None:
            watch = self._watches[rule.name, key] = judged.watch(key.replace("\x00", " "))
        return watch

    def _sweep(self, now: int) -> None:
        for key in [key for key, watch in self._watches.items() if watch.idle(now)]:
            self._watches.pop(key).close()
        self._sweep_at = max(SWEEP, 2 * len(self._watches))


def _key(rule: Rule, sent: Sent) -> str | None:
    """Under which key a rule counts a send; None where it does not apply to it."""
    values = []
    for wanted, value in ((rule.recipient, sent.recipient), (rule.group, sent.group or "")):
        if wanted:
            if not value or wanted not in (EACH, value):
                return None
            values.append(value)
    return "\x00".join(values)
