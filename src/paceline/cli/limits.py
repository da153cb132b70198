"""``paceline limits``: limits wider than one account."""

from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.server import part
from paceline.cli.show import Column, note, put, put_json, put_table, safe
from paceline.model.errors import InvalidError, Problem

app = App(name="limits", help="Set, list and remove limits wider than one account.")
_EXAMPLE: Final = """Example: no telephone gets more than one a minute:
  paceline limits set per-phone --limit 1/min --recipient '*' --channel sms"""


@app.command(name="set", sort_key=0, help_epilogue=_EXAMPLE)
def set_(
    name: str,
    /,
    *,
    limit: str,
    queue: str | None = None,
    tenant: str | None = None,
    recipient: str | None = None,
    group: str | None = None,
    channel: str | None = None,
    overall: Annotated[Switch, Parameter(name="--global")] = False,
    common: Common = USUAL,
) -> None:
    """Make a limit, or change it.

    Args:
        name: The limit's name.
        limit: At most so many in any such time: 100/s, 1/min.
        queue: For the messages of this queue together.
        tenant: For the messages of this tenant together.
        recipient: For one recipient; '*' for each one by itself.
        group: For one group; '*' for each one by itself.
        channel: Only on this channel.
        overall: For everything together.
    """
    scope: dict[str, Any] = {"queue": queue, "tenant": tenant, "recipient": recipient, "group": group}
    scope = {key: value for key, value in {**scope, "channel": channel}.items() if value is not None}
    if overall:
        scope["global"] = True
    if not scope:
        raise InvalidError(
            [
                Problem(
                    "", "say what it limits: --queue, --tenant, --recipient, --group, --channel or --global"
                )
            ]
        )
    with common.open() as server:
        answer = server.call("PUT", f"/limits/{part(name)}", {"scope": scope, "limit": limit})
    if common.json:
        put_json(answer)
    else:
        put(f"{safe(name)}  {safe(answer.get('limit', limit))}")


@app.command(name="list", sort_key=1)
def list_(*, common: Common = USUAL) -> None:
    """List the limits."""
    with common.open() as server:
        answer = server.get("/limits")
    found = answer["items"]
    if common.json:
        put_json(found)
    elif not found:
        note("There is no limit besides those of the accounts.")
    else:
        columns = (Column("name", 10), Column("limit", 9), Column("scope", 8), Column("used", 3, right=True))
        put_table(
            columns, ((one["name"], one["limit"], _scope(one["scope"]), one.get("used")) for one in found)
        )


@app.command(sort_key=2)
def remove(name: str, /, *, common: Common = USUAL) -> None:
    """Remove a limit.

    Args:
        name: The limit's name.
    """
    with common.open() as server:
        answer = server.call("DELETE", f"/limits/{part(name)}")
    if common.json:
        put_json(answer or {"removed": name})
    else:
        put(f"{safe(name)}  removed")


def _scope(scope: object) -> str:
    if not isinstance(scope, dict):
        return safe(scope)
    return ", ".join(key if value is True else f"{key}={safe(value)}" for key, value in scope.items())
