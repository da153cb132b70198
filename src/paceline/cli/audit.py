"""``paceline audit``: what is stored, held against what was promised."""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from paceline.cli.options import Switch
from paceline.cli.show import (
    Column,
    local,
    note,
    plural,
    put,
    put_json,
    put_table,
    safe,
    styled,
    width,
    wrapped,
)
from paceline.engine.audit import Audit, Order
from paceline.engine.audit_report import Check, Finding, LimitFigures, Report
from paceline.model import checks
from paceline.model.errors import InvalidError, PacelineError, Problem
from paceline.model.ids import to_text

BROKEN: Final = 1
NOT_CHECKED: Final = 2
_SHOWN_LIMITS: Final = 20


def audit(
    where: Path | None = None,
    /,
    *,
    account: str | None = None,
    since: str | None = None,
    integrity: bool | None = None,
    reordered: Switch = False,
    json: Switch = False,
) -> int:
    """Check that every promise was kept, as far as the journal can tell. It reads and never writes.

    The server may run meanwhile. Exit code 0: clean; 1: something is broken; 2: it could not be checked.

    Args:
        where: A data folder, or a database file: also a copy. Default: the store of the settings.
        account: Only the limits and quotas of this account, by its name or as tenant/name.
        since: Only from this moment, such as 2030-01-31T09:00:00Z.
        integrity: Run the database's own check of its file, too. Default: up to 2 GiB.
        reordered: Messages that were overtaken in their flow are only counted: people moved waiting messages to
            another priority or account, or removed a limit of recipients or groups.
        json: Print JSON for programs instead of text for people.
    """
    try:
        path, report = _run(where, account, _moment(since), integrity, reordered=reordered)
    except InvalidError:
        raise
    except PacelineError as error:
        if json:
            put_json({"verdict": "not checked", "reason": str(error)})
        else:
            note(f"error: {safe(str(error))}")
        return NOT_CHECKED
    if json:
        put_json(_view(path, report))
    else:
        _print(path, report)
    return 0 if report.clean else BROKEN


def _moment(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return checks.check_time(text)
    except ValueError as error:
        raise InvalidError([Problem("/since", str(error))]) from None


def _run(
    where: Path | None, account: str | None, since: int, integrity: bool | None, *, reordered: bool
) -> tuple[str, Report]:
    from paceline import wiring
    from paceline.cli.progress import progress
    from paceline.config import load

    settings = load({}, os.environ)
    reader = wiring.make_journal_reader(settings, where)
    order = Order(wiring.repeatable_channels(), account, since, integrity, reordered)

    async def run(stack: ExitStack) -> Report:
        def begin(total: int) -> Callable[[int], None]:
            return stack.enter_context(progress("Reading the journal", total))

        await reader.open()
        try:
            return await Audit(reader, order).run(begin)
        finally:
            await reader.close()

    with ExitStack() as stack:
        return reader.name, asyncio.run(run(stack))


# -- for people


def _print(path: str, report: Report) -> None:
    sizes = report.sizes
    put(
        f"{safe(path)}: {plural(sizes['messages'], 'message')}, {plural(sizes['lines'], 'journal line')}, "
        f"{sizes['bytes'] / 1024**2:,.1f} MiB"
    )
    put()
    put_table(_CHECKS, ([c.name, _verdict(c), _looked(c), c.broken or ""] for c in report.checks))
    if report.limits:
        put()
        put_table(_LIMITS, map(_limit_row, _worst_first(report.limits)[:_SHOWN_LIMITS]))
        if len(report.limits) > _SHOWN_LIMITS:
            note(f"{plural(len(report.limits) - _SHOWN_LIMITS, 'more limit')}: --json lists them all.")
    for check in report.checks:
        for remark in check.notes:
            note(f"{check.name}: {safe(remark)}")
    for check in report.checks:
        if check.broken:
            _print_findings(check)
    put()
    broken = [check.name for check in report.checks if check.broken]
    put(
        f"{styled('broken', 'bold red')}: {', '.join(broken)}"
        if broken
        else f"{styled('clean', 'green')}: nothing that was looked at breaks a promise"
    )


def _print_findings(check: Check) -> None:
    put()
    put(f"{check.name}: that {check.promise} is broken {plural(check.broken, 'time')}")
    room = width() or 10_000
    for finding in check.findings:
        when = f"{local(checks.print_time(finding.at))}  " if finding.at is not None else ""
        whose = f" [{finding.limit}]" if finding.limit else ""
        ids = " ".join(to_text(id_) for id_ in finding.messages)
        for piece in wrapped(safe(f"{when}{ids}  {finding.what}{whose}".strip()), room - 2):
            put(f"  {piece}")
    if check.broken > len(check.findings):
        put(f"  ... and {check.broken - len(check.findings):,} more")


def _verdict(check: Check) -> str:
    return "broken" if check.broken else "ok"


def _looked(check: Check) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in check.looked.items() if count)


def _worst_first(limits: Iterable[LimitFigures]) -> list[LimitFigures]:
    return sorted(
        limits, key=lambda one: (-one.broken, -max(one.places, one.arrivals) / one.maximum, one.scope)
    )


def _limit_row(one: LimitFigures) -> list[object]:
    key = f" {one.key}" if one.key else ""
    return [one.scope + key, one.limit, one.sends, one.before or "", f"{one.arrivals:,} of {one.maximum:,}",
            f"{one.places:,} of {one.maximum:,}", one.broken or ""]  # fmt: skip


_CHECKS = (
    Column("check", 10, least=10),
    Column("verdict", 9, least=7),
    Column("looked at", 5, least=12),
    Column("broken", 8, right=True, least=6),
)
_LIMITS = (
    Column("limit of", 10, least=12),
    Column("limit", 9, least=8),
    Column("sends", 6, right=True, least=5),
    Column("before it", 3, right=True, least=5),
    Column("surely in a window", 8, right=True, least=8),
    Column("places taken", 8, right=True, least=8),
    Column("broken", 4, right=True, least=6),
)


# -- for programs


def _view(path: str, report: Report) -> dict[str, Any]:
    return {
        "verdict": "clean" if report.clean else "broken",
        "store": path,
        **report.sizes,
        "checks": [
            {
                "name": check.name,
                "promise": check.promise,
                "verdict": _verdict(check),
                "looked_at": dict(check.looked),
                "broken": check.broken,
                "findings": [_finding_view(one) for one in check.findings],
                "notes": check.notes,
            }
            for check in report.checks
        ],
        "limits": [_limit_view(one) for one in _worst_first(report.limits)],
    }


def _finding_view(one: Finding) -> dict[str, Any]:
    return {
        "what": one.what,
        "messages": [to_text(id_) for id_ in one.messages],
        "at": None if one.at is None else checks.print_time(one.at),
        "limit": one.limit or None,
    }


def _limit_view(one: LimitFigures) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "limit": one.limit,
        "maximum": one.maximum,
        "sends": one.sends,
        "before_it_was_set": one.before,
        "most_surely_in_a_window": one.arrivals,
        "most_places_taken": one.places,
        "broken": one.broken,
        "worst_key": one.key or None,
    }
