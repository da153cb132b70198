"""``paceline accounts``: the sending identities."""

from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from paceline.cli.options import USUAL, Common
from paceline.cli.server import Server, part
from paceline.cli.show import Column, local, note, put, put_fields, put_json, put_table, safe, until
from paceline.cli.texts import pairs, parsed
from paceline.model.errors import InvalidError, NotFoundError, Problem

app = App(name="accounts", help="Set, list, pause, resume, test and probe accounts.")

_NEGATIVE: Final = Parameter(negative="")
_COLUMNS: Final = (
    Column("name", 10, least=10),
    Column("state", 9, least=9),
    Column("until", 7, least=8),
    Column("waiting", 8, right=True, least=7),
    Column("channel", 5),
    Column("limits", 4),
    Column("last leaves", 3),
)
_EXAMPLE: Final = """Examples:
  paceline accounts set news --channel smtp --set host=mail.example.com
    --set "from=News <news@example.com>" --set username=news
    --set password=@password.txt --limit 20/min --limit 200/h
  paceline accounts set news --limit 10/min --limit 100/h"""
_FIELDS: Final = (
    "channel", "settings", "limits", "interval", "jitter", "concurrency", "quota", "circuit", "pool", "enabled", "shared"
)  # fmt: skip
_NO_LIMIT: Final = "none"


@app.command(name="set", sort_key=0, help_epilogue=_EXAMPLE)
def set_(
    name: str,
    /,
    *,
    channel: str | None = None,
    setting: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    limit: Annotated[list[str] | None, _NEGATIVE] = None,
    interval: str | None = None,
    jitter: float | None = None,
    concurrency: int | None = None,
    quota: str | None = None,
    circuit: str | None = None,
    pool: str | None = None,
    disabled: Annotated[bool | None, Parameter(negative="--enabled")] = None,
    common: Common = USUAL,
) -> None:
    """Make an account, or change it: what is not named stays as it is.

    Args:
        name: The account's name.
        channel: How it sends: smtp, webhook, telegram-bot... A new account needs it.
        setting: A setting of the channel, as name=value; name=@FILE takes a file's text; name:=JSON, where null
            removes it.
        limit: At most so many in any such time: 20/min, 200/h, 5/2s. Those given replace all there were; 'none'
            removes them.
        interval: Least time from one message to the next, for example 2s.
        jitter: Random part of the interval, 0 to 1.
        concurrency: Most messages under way at once.
        quota: A quota as JSON, for example '{"day": 1000, "zone": "Asia/Shanghai"}'; null removes it.
        circuit: When to stop while the provider is down, as JSON, for example '{"after": 5, "pause": "1s", "at_most":
            "60s"}'; null never stops.
        pool: Accounts of one pool can stand in for one another.
        disabled: Keep it, and send nothing through it.
    """
    given: dict[str, Any] = {
        "channel": channel, "limits": [] if limit == [_NO_LIMIT] else limit, "interval": interval,
        "jitter": jitter, "concurrency": concurrency, "pool": pool,
        "enabled": None if disabled is None else not disabled,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    if quota is not None:
        given["quota"] = parsed("quota", quota)
    if circuit is not None:
        given["circuit"] = parsed("circuit", circuit)
    settings = pairs("set", setting)
    with common.open() as server:
        body = _as_it_is(server, name, channel) | given
        body["settings"] = body.get("settings", {}) | settings
        answer = server.call("PUT", f"/accounts/{part(name)}", body)
    if common.json:
        put_json(answer)
        return
    limits = limits_text(answer)
    put(f"{safe(name)}  {safe(answer.get('state', 'set'))}" + (f"  {limits}" if limits else "  no limit"))
    to = "" if answer.get("channel") == "webhook" and body["settings"].get("url") else " --to RECIPIENT"
    note(f"Try it with: paceline accounts test {safe(name)}{to}")


def _as_it_is(server: Server, name: str, channel: str | None) -> dict[str, Any]:
    """What a change starts from: the account as it is, or nothing. Its secrets are asterisks, which keep them."""
    try:
        old = server.get(f"/accounts/{part(name)}")
    except NotFoundError:
        if channel is None:
            problem = "is needed for a new account, for example --channel smtp"
            raise InvalidError([Problem("/channel", problem)]) from None
        return {}
    if channel not in {None, old["channel"]}:
        return {}
    # Of these only the circuit knows null and absent apart.
    return {
        field: old[field]
        for field in _FIELDS
        if field in old and (old[field] is not None or field == "circuit")
    }


@app.command(name="list", sort_key=1)
def list_(*, limit: int = 1000, common: Common = USUAL) -> None:
    """List the accounts with their live state.

    Args:
        limit: At most so many.
    """
    with common.open() as server:
        found = list(server.pages("/accounts", {}, limit))
    if common.json:
        put_json(found)
    elif not found:
        note("There is no account yet. Make one with: paceline accounts set NAME --channel CHANNEL")
    else:
        put_table(_COLUMNS, (row(one) for one in found))


@app.command(sort_key=2)
def show(name: str, /, *, common: Common = USUAL) -> None:
    """Show one account: limits and how much of each is used, waits, quota.

    Args:
        name: The account's name.
    """
    with common.open() as server:
        one = server.get(f"/accounts/{part(name)}")
    if common.json:
        put_json(one)
        return
    special = {"until", "eta_last", "limits", "usage", "interval", "reasons", "settings"}
    put_fields(
        [
            *((key, value) for key, value in one.items() if key not in special),
            ("until", _moment(one.get("until"))),
            ("last leaves", _moment(one.get("eta_last"))),
            ("reasons", _listed(one.get("reasons"))),
            ("limits", limits_text(one)),
            *((f"settings.{key}", value) for key, value in (one.get("settings") or {}).items()),
        ]
    )


@app.command(sort_key=3)
def pause(name: str, /, *, common: Common = USUAL) -> None:
    """Send nothing through an account until it is resumed.

    Args:
        name: The account's name.
    """
    _do(name, "pause", common)


@app.command(sort_key=4)
def resume(name: str, /, *, common: Common = USUAL) -> None:
    """Go on after a pause.

    Args:
        name: The account's name.
    """
    _do(name, "resume", common)


@app.command(sort_key=5)
def probe(name: str, /, *, common: Common = USUAL) -> int:
    """Find out now whether the account works, without sending.

    Args:
        name: The account's name.
    """
    with common.open() as server:
        one = server.post(f"/accounts/{part(name)}/probe")
    error = one.get("error") or {}
    if common.json:
        put_json(one)
    else:
        word = {True: "works", False: "does not work"}.get(one.get("ok"), "cannot be probed")
        put(f"{safe(name)}  {word}")
        note(safe(one.get("detail") or f"{error.get('code')}: {error.get('text')}"))
    return 1 if one.get("ok") is False else 0


@app.command(name="test", sort_key=6)
def send_test(
    name: str,
    /,
    *,
    to: str | None = None,
    text: str = "A test message from Paceline.",
    common: Common = USUAL,
) -> int:
    """Send one message now, under the account's limits.

    Args:
        name: The account's name.
        to: The recipient.
        text: What it says.
    """
    body = {"text": text} if to is None else {"to": to, "text": text}
    with common.open() as server:
        one = server.post(f"/accounts/{part(name)}/test", body)
    state = str(one.get("state"))
    if common.json:
        put_json(one)
    else:
        put(f"{safe(one.get('id'))}  {safe(state)}")
        if one.get("error"):
            note(f"{safe(one['error'].get('code'))}: {safe(one['error'].get('text'))}")
        elif state != "completed":
            note(f"Why it waits: paceline messages why {safe(one.get('id'))}")
    return 1 if state in {"failed", "uncertain", "expired"} or one.get("error") else 0


def row(one: dict[str, Any]) -> tuple[object, ...]:
    """One account as the cells of the table."""
    return (
        one.get("name"),
        one.get("state"),
        until(one["until"]) if one.get("until") else "",
        one.get("waiting"),
        one.get("channel"),
        limits_text(one),
        until(one["eta_last"]) if one.get("eta_last") else "",
    )


def limits_text(one: dict[str, Any]) -> str:
    """The limits of an account with what is used of each: ``18 of 20/min, 18 of 200/h``."""
    # The spacing comes among the limits, too, as "1/2s"; below it is told in words.
    interval = str(one.get("interval") or "")
    spacing = {f"1/{interval}", f"1/{interval.removeprefix('1')}", "1/min" if interval == "1m" else ""}
    used = [
        f"{safe(limit['used'])} of {safe(limit['limit'])}"
        for limit in one.get("usage") or ()
        if not interval or limit["limit"] not in spacing
    ]
    if not used:
        used = [safe(limit) for limit in one.get("limits") or ()]
    if one.get("interval"):
        used.append(f"one every {safe(one['interval'])}")
    return ", ".join(dict.fromkeys(used))


def _do(name: str, action: str, common: Common) -> None:
    with common.open() as server:
        one = server.post(f"/accounts/{part(name)}/{action}")
    if common.json:
        put_json(one)
        return
    put(f"{safe(name)}  {safe(one.get('state'))}")
    for reason in one.get("reasons") or ():
        note(f"- {safe(reason['text'])}")


def _listed(reasons: object) -> str:
    if not isinstance(reasons, list):
        return safe(reasons)
    return "; ".join(safe(one.get("text") if isinstance(one, dict) else one) for one in reasons)


def _moment(text: object) -> str:
    return f"{local(text)} ({until(text)})" if text else ""
