"""The audit: holds what is stored against what was promised, without a server, and changes nothing."""

from collections.abc import Callable, Sequence

import msgspec

from paceline.engine.audit_clock import KIND as CLOCK_STEP
from paceline.engine.audit_clock import LIVE, Steps
from paceline.engine.audit_counts import Counts, Days
from paceline.engine.audit_limits import AccountPass, Limits, WidePass, account_limits, wide_limits
from paceline.engine.audit_messages import Histories, histories
from paceline.engine.audit_order import FlowOrder
from paceline.engine.audit_report import Check, Report
from paceline.engine.documents import LIMIT
from paceline.model.errors import NotFoundError
from paceline.model.ids import first_of
from paceline.pacing.scopes import Rule
from paceline.stores.journal import JournalReader

ACCOUNT = "account"
DAY_MS = 86_400_000
SMALL = 2 * 1024**3
"""Files up to this size are looked through by the store's own check unless told otherwise."""


class Order(msgspec.Struct, frozen=True):
    """What to audit.

    Attributes:
        repeat_is_safe: channels on which a repeat cannot double a message.
        account: only the limits and quotas of this account, by its name or its tenant/name.
        since: only what was handed over, or taken in, from this moment (ms since 1970).
        integrity: whether the store's own check of its files runs; None: where they are small.
        reordered: people moved waiting messages, or removed limits of recipients or groups.
    """

    repeat_is_safe: frozenset[str]
    account: str | None = None
    since: int = 0
    integrity: bool | None = None
    reordered: bool = False


class Audit:
    """One run over one store."""

    def __init__(self, reader: JournalReader, order: Order) -> None:
        """`reader` is open."""
        self._reader, self._order = reader, order
        self._advance: Callable[[int], None] = lambda _count: None
        self._steps = Steps(())
        self._report = Report({}, [], [])

    async def run(self, begin: Callable[[int], Callable[[int], None]]) -> Report:
        """Look at everything. `begin` is told how many rows there are to look at and gives what counts them.

        Raises:
            NotFoundError: there is no such account.
            SchemaError, UnavailableError: the store cannot be read.
        """
        reader, report = self._reader, self._report
        report.sizes = await reader.sizes()
        rules = await reader.documents(LIMIT)
        passes = 1 if self._order.account else 2 + bool(rules)
        self._advance = begin(report.sizes["lines"] * passes)
        async with reader.moment():
            await self._limits()
        if self._order.account is None:
            async with reader.moment():
                whole_from = await self._messages()
            async with reader.moment():
                await self._counts(whole_from)
                await self._file()
        return report

    # -- limits

    async def _limits(self) -> None:
        reader, order = self._reader, self._order
        self._steps = Steps(await reader.documents(CLOCK_STEP), await reader.documents(LIVE))
        known = account_limits(await reader.documents(ACCOUNT))
        rules = [] if order.account else wide_limits(await reader.documents(LIMIT))
        limits = Limits(order.since, self._steps)
        self._report.checks += [limits.windows, limits.places, limits.quotas]
        self._report.limits = limits.figures
        wanted: Sequence[str | None] = [None] if order.account is None else _named(order.account, set(known))
        spans = [limit.span_ms for one in known.values() for _, limit in one.limits]
        spans += [rule.limit.span_ms for rule, _ in rules] + [32 * DAY_MS]
        since = order.since - max(spans) if order.since else -1
        by_account = AccountPass(limits, known)
        for account in wanted:
            async for page in reader.sends(since, account):
                by_account.feed(page)
                self._advance(len(page))
        by_account.close()
        if rules:
            wide = WidePass(limits, rules, await reader.flow_keys())
            async for page in reader.sends_in_time(since):
                wide.feed(page)
                self._advance(len(page))
            wide.close()
        self._notes(limits)

    def _notes(self, limits: Limits) -> None:
        before = sum(each.before for each in limits.figures)
        if before:
            limits.windows.notes.append(
                f"{before:,} sends are from before the present limit was set, and are not held against it"
            )
        limits.places.looked.update(limits.windows.looked)
        if self._steps.twice:
            limits.windows.notes.append(
                "the wall clock was set back while nothing ran: what it showed twice is not judged"
            )

    # -- messages

    async def _messages(self) -> int | None:
        reader, order = self._reader, self._order
        keys = await reader.flow_keys()
        keyed: list[Rule] = [rule for rule, _ in wide_limits(await reader.documents(LIMIT)) if rule.is_keyed]

        def passes(flow: int) -> bool:
            key = keys.get(flow)
            return key is None or any(rule.covers(key) for rule in keyed)

        told = frozenset(await reader.told_to_wait())
        flows = FlowOrder(passes, told, self._steps, reordered=order.reordered)
        checks = Histories(order.repeat_is_safe, self._steps, flows)
        self._report.checks += [checks.handed, flows.check, checks.endings, checks.times]
        first = first_of(order.since)
        async for page in histories(reader.standings(first), reader.lines(first)):
            checks.feed(page)
            self._advance(sum(len(lines) for _, lines in page))
        return checks.whole_from

    # -- the rest

    async def _counts(self, whole_from: int | None) -> None:
        counts, days = Counts(), Days(whole_from, self._order.since)
        self._report.checks += [counts.check, days.check]
        async for page in self._reader.counts():
            counts.feed(page)
        async for figures in self._reader.days():
            days.feed(figures)
        if days.check.looked["figures"] > days.check.looked["figures of whole days"]:
            days.check.notes.append(
                "of days whose journal may have been cleaned, figures are only checked to be no less than it"
            )

    async def _file(self) -> None:
        check = Check("file", "nothing is left over, and the store's files are sound")
        self._report.checks.append(check)
        for left in await self._reader.leftovers():
            check.fault(f"{left.count:,} times: {left.what}", left.ids)
        check.looked["messages"] = self._report.sizes["messages"]
        wanted = self._order.integrity
        if wanted or (wanted is None and self._report.sizes["bytes"] <= SMALL):
            for what in await self._reader.integrity():
                check.fault(what)
            check.looked["bytes"] = self._report.sizes["bytes"]
        else:
            check.notes.append("the store's own check of its files was left out; ask for it with --integrity")


def _named(name: str, known: set[str]) -> list[str]:
    """The accounts of that name: of one tenant if it is named, else of all."""
    found = [id_ for id_ in known if name in (id_, id_.partition("/")[2])]
    if not found:
        raise NotFoundError(f"there is no account '{name[:80]}' in this store")
    return sorted(found)
