"""``paceline doctor``: what is wrong, and what to do about it. It changes nothing."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import structlog
from cyclopts import Parameter

from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.show import put, put_json, safe, styled, width, wrapped
from paceline.client_types import UnreachableError
from paceline.config import Settings, load
from paceline.model.errors import InvalidError, NotFoundError, OccupiedError, PacelineError

Finding = dict[str, Any]

_MARKS = {"pass": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def doctor(
    *,
    reach: Annotated[
        Switch, Parameter(help="Also connect to each account's provider; nothing is sent.")
    ] = False,
    data: Path | None = None,
    store: str | None = None,
    common: Common = USUAL,
) -> int:
    """Check the settings and the server, or its data folder and store while it is down, and say what to mend.

    The exit code is 0 when everything passed, 1 when there are warnings, 2 when something failed.

    Args:
        data: Folder of the store and the keys. Default: that of the settings.
        store: URL of a store elsewhere, such as postgresql://user@host/database. Default: that of the settings.
    """
    findings: list[Finding] = []
    try:
        settings = load({"data": data, "store": store}, os.environ)
        findings.append(_finding("settings", "pass", _origins(settings)))
        findings += _server(common, settings, reach=reach)
    except InvalidError as error:  # without settings nobody knows where the server is
        findings += [_finding("settings", "fail", one.problem, "Mend it there.") for one in error.problems]
    if common.json:
        put_json(findings)
    else:
        _print(findings)
    worst = {one["status"] for one in findings}
    return 2 if "fail" in worst else 1 if "warn" in worst else 0


def _finding(name: str, status: str, detail: str, advice: str = "") -> Finding:
    return {"name": name, "status": status, "ok": status == "pass", "detail": detail, "advice": advice}


def _origins(settings: Settings) -> str:
    places = {settings.origin(name) for name in settings.origins}
    return "all defaults" if not places else "defaults, and " + ", ".join(sorted(places))


def _server(common: Common, settings: Settings, *, reach: bool) -> list[Finding]:
    """What the server says of itself; while it is down, what its data folder says."""
    try:
        with common.open() as server:
            found = server.get("/doctor", {"reach": "true"} if reach else None)
            ready = "pass" if server.ready() else "fail"
            said = _finding(
                "server", ready, f"{server.address} answers", "It is starting, or see 'store' below."
            )
            return [said, *(_of_server(one) for one in found["checks"])]
    except UnreachableError as error:
        return [_finding("server", "fail", str(error), "Start it with: paceline up"), *_folder(settings)]
    except PacelineError as error:
        return [
            _finding("server", "fail", str(error), "Name the right server and key: --server, --key-file.")
        ]


def _of_server(one: dict[str, Any]) -> Finding:
    status = str(one.get("status") or ("pass" if one["ok"] else "fail"))
    return _finding(str(one["name"]), status, str(one.get("detail") or ""), str(one.get("advice") or ""))


def _folder(settings: Settings) -> list[Finding]:
    """The data folder from outside, and what could not be seen from there."""
    from paceline import wiring
    from paceline.engine.doctor import only_running

    data = settings.data
    if not data.exists() and settings.store is None:
        return [_finding("data folder", "pass", f"{data.absolute()} is not there yet; paceline up makes it")]
    unseen = ", ".join(only_running())
    structlog.configure(
        processors=[], logger_factory=structlog.ReturnLoggerFactory()
    )  # the findings say it, and better
    try:
        found = asyncio.run(wiring.look(settings))
    except PacelineError as error:
        found = asyncio.run(wiring.look_at_folder(settings))
        status, advice = "warn", "Nothing is there before the first start."
        if isinstance(error, OccupiedError):
            advice = "It runs, but not at this address: name it with --server, or look into its log."
        elif settings.store is not None and not isinstance(error, NotFoundError):
            status, advice = "fail", "Mend that, or name another store with --store."
        found.append(_finding("store", status, str(error), advice))
        unseen = "messages, accounts, " + unseen
    return [*found, _finding("not checked", "warn", unseen, "Start the server and ask again.")]


def _print(findings: list[Finding]) -> None:
    room = width() or 10_000
    for one in findings:
        mark, style = _MARKS.get(str(one["status"]), ("?   ", "bold"))
        text = safe(one["name"]) + (f": {safe(one['detail'])}" if one["detail"] else "")
        pieces = wrapped(text, room - 5)
        put(f"{styled(mark, style)} {pieces[0]}")
        pieces = pieces[1:]
        if one["status"] != "pass" and one["advice"]:
            pieces += wrapped(safe(one["advice"]), room - 5)
        for piece in pieces:
            put(f"     {piece}")
