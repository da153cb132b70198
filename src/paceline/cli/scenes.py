"""What the demonstration shows: a snapshot of the server, as a picture for a terminal or as lines of text."""

from dataclasses import dataclass
from typing import Any, Final

from paceline.cli.messages import reason_words
from paceline.cli.server import Server, part
from paceline.cli.show import STYLES, cut, local, moment, now, plural, safe, spell, styled, until, width

ACCOUNTS: Final = ("fast", "steady", "hooks")
_WHY_EVERY_S: Final = 5


@dataclass
class Scene:
    """One moment of the demonstration."""

    elapsed: float
    counts: dict[str, int]
    accounts: list[dict[str, Any]]
    sent: dict[str, int]
    why: dict[str, Any] | None
    loaded: bool = True

    @property
    def total(self) -> int:
        """All messages."""
        return sum(self.counts.values())

    @property
    def open(self) -> int:
        """Those that have not ended."""
        return self.total - self.counts.get("completed", 0) - self.counts.get("failed", 0)


def look(server: Server, elapsed: float) -> Scene:
    """Ask the server."""
    counts: dict[str, int] = {}
    for queue in server.get("/queues/status")["queues"]:
        for name, count in queue["counts"].items():
            if name != "paused":  # those are counted as waiting, too
                counts[name] = counts.get(name, 0) + int(count)
    accounts = [server.get(f"/accounts/{name}") for name in ACCOUNTS]
    sent = {name: _sent(server, name) for name in ACCOUNTS}
    last = server.get("/messages", {"state": ["pending", "scheduled", "retrying"], "limit": 1})["items"]
    why = server.get(f"/messages/{part(last[0]['id'])}/why") if last else None
    return Scene(elapsed, counts, accounts, sent, why)


def _sent(server: Server, name: str) -> int:
    return int(server.get(f"/accounts/{part(name)}/queue")["stats"]["completed"])


def words(account: dict[str, Any]) -> str:
    """What an account is doing, in a few words."""
    state, left = account["state"], _left(account)
    match state:
        case "flooded":
            return f"was told to wait: {left} more; the others go on"
        case "limited":
            held = [str(one["limit"]) for one in account.get("usage", ()) if one["used"] >= one["maximum"]]
            limit = held[0] if held else "its limit"
            if account.get("interval"):
                return f"one every {account['interval']}: the next in {left}"
            return f"has used {limit}: the next in {left}"
        case "paused" | "unhealthy" | "over-quota":
            return str(state)
        case _ if account.get("in_flight"):
            return "sends"
        case _:
            return "may send"


def frame(scene: Scene) -> list[str]:
    """A picture of the moment, as wide as the terminal."""
    room = (width() or 80) - 1
    size = max(10, min(40, room - 30))
    done = scene.total - scene.open
    filled = size * done // max(1, scene.total)
    bar = styled("█" * filled, "green") + styled("░" * (size - filled), "dim")
    lines = ["", f"{bar}  {done} of {plural(scene.total, 'message')}, {spell(int(scene.elapsed))}", ""]
    for account in scene.accounts:
        name = safe(account["name"])
        text = cut(f"{scene.sent[name]:>4} sent  {words(account)}", room - 8)
        lines.append(f"{styled(f'{name:<8}', 'bold')}{styled(text, STYLES.get(account['state']))}")
    lines.append("")
    lines += [cut(text, room) for text in why_words(scene)]
    return lines


def line(scene: Scene) -> list[str]:
    """The moment as one line, and every few seconds the reasons why the last message waits."""
    done = scene.total - scene.open
    parts = "; ".join(f"{safe(one['name'])} {words(one)}" for one in scene.accounts)
    lines = [f"{scene.elapsed:4.0f} s  {done:>3} of {scene.total} sent. {parts}"]
    if round(scene.elapsed) % _WHY_EVERY_S == 0:
        lines += [f"        {text}" for text in why_words(scene)]
    return lines


def why_words(scene: Scene) -> list[str]:
    """Why the last message waits, and when it leaves."""
    if scene.why is None:
        return []
    lines = [f"The last one, {safe(scene.why['id'])}, waits because"]
    for reason in scene.why.get("reasons") or ():
        text = f"- {reason_words(reason)}"
        if reason.get("until"):
            text += f" ({until(reason['until'])})"
        lines.append(text)
    if len(lines) == 1:
        lines = []
    if scene.why.get("eta"):
        lines.append(f"It leaves {until(scene.why['eta'])}, at {local(scene.why['eta'])}.")
    return lines


def _left(account: dict[str, Any]) -> str:
    instant = moment(account.get("until"))
    return spell(max(0.0, (instant - now()).total_seconds())) if instant else "a moment"
