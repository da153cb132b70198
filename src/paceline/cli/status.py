"""``paceline status``: everything on one screen."""

from paceline.cli.accounts import row
from paceline.cli.options import USUAL, Common
from paceline.cli.queues import COLUMNS, rows_of
from paceline.cli.show import Column, local, note, plural, put, put_json, put_table, safe, say, styled


def status(*, common: Common = USUAL) -> int:
    """Tell what waits, what is sent, and how the accounts are."""
    with common.open() as server:
        queues = server.get("/queues/status")
        accounts = list(server.pages("/accounts", {}, 1000))
        hold = server.get("/hold")
        ready = server.ready()
        if common.json:
            put_json(
                {"ready": ready, "hold": hold, "address": server.address, **queues, "accounts": accounts}
            )
            return 0 if ready else 1
        word = styled("ready", "green") if ready else styled("not ready", "red")
        put(f"{safe(server.address)} is {word}")
    if hold["held"]:
        say(f"ON HOLD since {local(hold['since'])}: nothing is sent. {safe(hold['text'])}")
        say("Release it with: paceline release")
    summary = queues["summary"]
    say(
        f"{summary['totalWaiting']:,} waiting, {summary['totalActive']:,} active, "
        f"{summary['totalCompleted']:,} completed, {summary['totalFailed']:,} failed"
    )
    if rows := rows_of(queues):
        put()
        put_table(COLUMNS, rows)
    if accounts:
        put()
        put_table(_ACCOUNTS, (row(one) for one in accounts[:20]))
        if len(accounts) > 20:
            note(f"{plural(len(accounts) - 20, 'more account')}: paceline accounts list")
    else:
        note("There is no account yet. Make one with: paceline accounts set NAME --channel CHANNEL")
    return 0 if ready else 1


_ACCOUNTS = (
    Column("account", 10, least=10),
    Column("state", 9, least=9),
    Column("until", 7, least=8),
    Column("waiting", 8, right=True, least=7),
    Column("channel", 5),
    Column("limits", 4),
    Column("last leaves", 3),
)
