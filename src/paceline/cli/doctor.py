"""``paceline doctor``: what is wrong, and what to do about it. It changes nothing."""

import os
import shutil
import stat
from pathlib import Path
from typing import Any

from paceline.cli.options import USUAL, Common
from paceline.cli.show import put, put_json, safe, styled, width, wrapped
from paceline.client_types import UnreachableError
from paceline.config import Settings, load
from paceline.model.errors import InvalidError, PacelineError

Finding = dict[str, Any]
_LEAST_FREE = 1024**3


def doctor(*, common: Common = USUAL) -> int:
    """Check the settings, the data folder and the server, each by itself, and say what to mend."""
    findings: list[Finding] = []
    try:
        settings = load({}, os.environ)
        findings.append(_finding("settings", True, _origins(settings)))
        findings += _folder(settings.data)
    except InvalidError as error:
        for problem in error.problems:
            findings.append(_finding("settings", False, problem.problem, "Mend it there."))
    if all(one["ok"] for one in findings if one["name"] == "settings"):
        findings += _server(common)  # without settings nobody knows where it is
    if common.json:
        put_json(findings)
    else:
        _print(findings)
    return 0 if all(one["ok"] for one in findings) else 1


def _finding(name: str, ok: bool, detail: str, advice: str = "") -> Finding:
    return {"name": name, "ok": ok, "detail": detail, "advice": advice}


def _origins(settings: Settings) -> str:
    places = {settings.origin(name) for name in settings.origins}
    return "all defaults" if not places else "defaults, and " + ", ".join(sorted(places))


def _folder(data: Path) -> list[Finding]:
    where = str(data.absolute())
    if not data.exists():
        return [_finding("data folder", True, f"{where} is not there yet; paceline up makes it")]
    if not data.is_dir():
        return [
            _finding("data folder", False, f"{where} is no folder", "Choose another one with PACELINE_DATA.")
        ]
    found = [
        _finding("data folder", True, where)
        if os.access(data, os.W_OK | os.X_OK)
        else _finding(
            "data folder", False, f"{where} cannot be written to", "Change its permissions or owner."
        )
    ]
    free = shutil.disk_usage(data).free
    found.append(
        _finding(
            "free disk",
            free >= _LEAST_FREE,
            f"{free / 1024**3:.1f} GiB free",
            "" if free >= _LEAST_FREE else "Make room, or clean old messages: paceline queues clean QUEUE",
        )
    )
    key = data / "admin.key"
    if key.is_file():
        mode = stat.S_IMODE(key.stat().st_mode)
        private = not mode & 0o077
        found.append(
            _finding(
                "admin key", private, f"{key} has mode {mode:03o}", "" if private else f"Run: chmod 600 {key}"
            )
        )
    return found


def _server(common: Common) -> list[Finding]:
    try:
        with common.open() as server:
            try:
                found = server.get("/doctor")
            except UnreachableError as error:
                advice = "Start it with: paceline up"
                return [_finding("server", False, str(error), advice)]
            said = [_finding("server", server.ready(), f"{server.address} answers")]
            return said + [
                _finding(
                    str(one["name"]),
                    bool(one["ok"]),
                    str(one.get("detail") or ""),
                    str(one.get("advice") or ""),
                )
                for one in (found["checks"])
            ]
    except PacelineError as error:
        return [_finding("server", False, str(error), "Name the right server and key: --server, --key-file.")]


def _print(findings: list[Finding]) -> None:
    room = width() or 10_000
    for one in findings:
        mark = styled("ok  ", "green") if one["ok"] else styled("FAIL", "bold red")
        text = safe(one["name"]) + (f": {safe(one['detail'])}" if one["detail"] else "")
        pieces = wrapped(text, room - 5)
        put(f"{mark} {pieces[0]}")
        pieces = pieces[1:]
        if not one["ok"] and one["advice"]:
            pieces += wrapped(safe(one["advice"]), room - 5)
        for piece in pieces:
            put(f"     {piece}")
