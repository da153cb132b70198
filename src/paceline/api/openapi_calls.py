"""The calls of the OpenAPI document, as data: a row for each."""

import re
from typing import Any, Final

import msgspec

from paceline.api.messages import FILTERS
from paceline.api.openapi_shapes import STATES, Schema, ref
from paceline.api.watching import TYPES


class Reply(msgspec.Struct, frozen=True):
    """One good answer."""

    shape: str | None
    told: str
    example: Any = None
    kinds: tuple[str, ...] = ("application/json",)

    def render(self) -> Schema:
        """As OpenAPI writes it."""
        response: Schema = {"description": self.told}
        if self.shape is not None:
            schema = ref(self.shape) if self.shape else {"type": "string"}
            part = {"schema": schema} | ({} if self.example is None else {"example": self.example})
            response["content"] = dict.fromkeys(self.kinds, part)
        return response


class Operation(msgspec.Struct, frozen=True):
    """One call. `errors()` adds what follows from its parts."""

    method: str
    path: str
    tag: str
    summary: str
    role: str | None
    answers: dict[int, Reply]
    told: str = ""
    query: tuple[str, ...] = ()
    body: str | None = None
    example: Any = None
    lines: str | None = None
    conflicts: bool = False
    open_at_home: bool = False
    """Takes no key on a server that listens on a loopback address alone."""

    @property
    def names(self) -> list[str]:
        """The names in the path."""
        return re.findall(r"{(\w+)}", self.path)

    def content(self) -> Schema:
        """The request's body."""
        part: Schema = {"schema": ref(self.body or "")}
        if self.example is not None:
            part["example"] = self.example
        content: Schema = {"application/json": part}
        if self.lines is not None:
            content["application/x-ndjson"] = {"schema": {"type": "string"}, "example": self.lines}
        return content

    def errors(self) -> list[int]:
        """Statuses of its problems."""
        if self.role is None:
            return [403, 500]
        found = {401, 403, 422, 500, 503}
        if self.names:
            found.add(404)
        if self.body:
            found |= {400, 408, 413, 415}
        if self.conflicts:
            found.add(409)
        return sorted(found)


TAGS: Final = {
    "Messages": "Take messages in, look at them, change them, one or many.",
    "Accounts": "Sending identities, their limits and their live status.",
    "Limits": "Limits that are wider than an account.",
    "Queues": "Named classes of messages, their counts and jobs.",
    "Templates": "Texts to fill in.",
    "Watching": "Statistics, the scheduler, and events as they happen.",
    "System": "Keys, health, metrics.",
}

_TEXT: Final[Schema] = {"type": "string"}
_REPEAT: Final = "Repeat it for 'or'."


def _filter(told: str, schema: Schema = _TEXT) -> Schema:
    listed = {"type": "array", "items": schema}
    return {"schema": listed, "description": f"{told} {_REPEAT}", "explode": True}


def _once(told: str, **schema: Any) -> Schema:
    return {"schema": schema or _TEXT, "description": told}


PARAMETERS: Final[dict[str, Schema]] = {
    "queue": _filter("Of this queue."),
    "channel": _filter("Of this channel."),
    "account": _filter("Of this account."),
    "pool": _filter("Of this pool."),
    "tenant": _filter("Of this tenant. Only for keys of the whole installation."),
    "campaign": _filter("Of this campaign."),
    "batch": _filter("Of this batch."),
    "group": _filter("With this group."),
    "source": _filter("With this source."),
    "kind": _filter("With this kind."),
    "code": _filter("Whose last call ended with this code, such as quarantined."),
    "state": _filter("In this state.", {"type": "string", "enum": STATES}),
    "to": _filter("To this recipient."),
    "priority": _filter("With this priority."),
    "created_from": _once("Created at or after this moment.", type="string", format="date-time"),
    "created_to": _once("Created before this moment.", type="string", format="date-time"),
    "q": _once("This text in subject, body or recipient."),
    "cursor": _once("`next` of the page before."),
    "limit": _once("Items in a page.", type="integer", minimum=1, maximum=1000, default=50),
    "wait": _once("Wait so many seconds for the end of the message.", type="number", minimum=0, maximum=60),
    "format": _once("Of the file.", type="string", enum=["csv", "jsonl"]),
    "reach": _once("Also connect to each account's provider, without sending or signing in.", type="boolean",
                   default=False),
    "dry_run": _once("Only tell what would be done.", type="boolean", default=False),
    "status": _once("Only this state or view."),
    "start": _once("First job, from 0.", type="integer", minimum=0, default=0),
    "end": _once("Last job; at most 999 after the first.", type="integer", minimum=0),
    "by": _once("What to count by; default `code`."),
    "types": _filter("These types of event, also with commas between them.",
                     {"type": "string", "enum": list(TYPES)}),
    "last_event_id": _once("Go on after this event; the header `Last-Event-ID` wins."),
}  # fmt: skip

ONE: Final[dict[str, Schema]] = {
    "queue": _once("Of this queue."),
    "account": _once("Of this account."),
    "campaign": _once("Of this campaign."),
    "tenant": _once("Act as one of this tenant. Only for keys of the whole installation."),
}
"""Where these are not filters of messages, they may stand once."""

_API: Final = "/api/v1"
_FILTERS: Final = tuple(name for name in PARAMETERS if name in FILTERS)
_MESSAGE: Final = {"channel": "telegram-bot", "account": "bot-1", "to": "100200300", "text": "Your code is 4711",
                   "priority": "critical", "expires_at": "2030-01-01T12:00:00Z"}  # fmt: skip
_ID: Final = "01jq8x5v7m2k9"
_RECEIPT: Final = {
    "id": _ID,
    "state": "pending",
    "eta": "2030-01-01T11:55:02.150Z",
    "why": [],
    "duplicate": False,
}
_GONE: Final = {204: Reply(None, "Done.")}
_TENANT: Final = ("tenant",)


def _ok(name: str, told: str = "As asked.", example: Any = None) -> dict[int, Reply]:
    return {200: Reply(name, told, example)}


def _row(method: str, path: str, tag: str, summary: str, role: str, answers: dict[int, Reply], **more: Any
         ) -> Operation:  # fmt: skip
    return Operation(method, _API + path, tag, summary, role, answers, **more)


CALLS: Final[tuple[Operation, ...]] = (
    _row("POST", "/messages", "Messages", "Take a message in", "sender", {
        202: Reply("Receipt", "It is on disk and will be sent.", _RECEIPT),
        200: Reply("Message", "With `wait`: it has ended, and this is how."),
    }, query=("wait",), body="NewMessage", example=_MESSAGE, conflicts=True,
       told="Answered once the message is on disk."),
    _row("POST", "/messages/batch", "Messages", "Take up to 10,000 messages in", "sender", {
        202: Reply("BatchReceipt", "Each was accepted or rejected on its own.", {
            "batch": _ID, "accepted": [{"index": 0, "id": _ID}],
            "rejected": [{"index": 1, "errors": [{"field": "/to", "problem": "is missing"}]}]}),
    }, body="NewBatch", example={"messages": [{"to": "100"}, {"to": "200"}],
                                 "defaults": {"channel": "telegram-bot", "text": "Hello"}},
       lines='{"channel":"telegram-bot","to":"100","text":"Hello"}\n{"channel":"telegram-bot","to":"200","text":"Hi"}\n',
       told="A bad message does not hold back the others. As `application/x-ndjson` one message stands on each "
            "line; empty lines do not count."),
    _row("GET", "/batches/{id}", "Messages", "How far a batch is", "viewer", _ok("Batch")),
    _row("GET", "/messages", "Messages", "List messages, newest first", "viewer", _ok("MessagePage"),
         query=(*_FILTERS, "cursor", "limit"), told="All filters may be combined."),
    _row("GET", "/messages/export", "Messages", "Export messages as a file", "viewer", {
        200: Reply("", "The file, streamed.", kinds=("text/csv", "application/x-ndjson"))},
        query=("format", *_FILTERS),
        told="`jsonl` is without loss. In `csv` cells that a spreadsheet would take for a formula begin with an "
             "apostrophe; plain phone numbers (`+` and digits) stay as they are."),
    _row("POST", "/messages/actions", "Messages", "Retry, cancel, delete or change many", "operator",
         _ok("ActionResult"), query=("dry_run",), body="Action", conflicts=True,
         example={"action": "retry", "filter": {"state": ["failed"], "queue": ["sms"]}, "expect": 17}),
    _row("GET", "/messages/{id}", "Messages", "Show a message", "viewer", _ok("Message")),
    _row("PATCH", "/messages/{id}", "Messages", "Change a waiting message", "operator", _ok("Message"),
         body="MessageChanges", example={"priority": "high"}, conflicts=True),
    _row("DELETE", "/messages/{id}", "Messages", "Delete a message", "operator", _GONE, conflicts=True,
         told="One that waits or has ended."),
    _row("GET", "/messages/{id}/trace", "Messages", "Where a message's time went", "viewer", _ok("Trace")),
    _row("GET", "/messages/{id}/why", "Messages", "Why a message waits", "viewer", _ok("Why")),
    _row("POST", "/messages/{id}/retry", "Messages", "Send a message again", "operator", _ok("Message"),
         conflicts=True),
    _row("POST", "/messages/{id}/cancel", "Messages", "Withdraw a waiting message", "sender", _ok("Message"),
         conflicts=True),
    _row("POST", "/messages/{id}/settle", "Messages", "Settle an uncertain message", "operator", _ok("Message"),
         body="Settlement", example={"as": "completed"}, conflicts=True),
    _row("GET", "/accounts", "Accounts", "List accounts", "viewer", _ok("Page"),
         query=("cursor", "limit", "tenant")),
    _row("GET", "/accounts/{name}", "Accounts", "Show an account", "viewer", _ok("Account"), query=_TENANT),
    _row("PUT", "/accounts/{name}", "Accounts", "Create or replace an account", "admin", _ok("Account"),
         query=_TENANT, body="NewAccount", conflicts=True, example={
             "channel": "telegram-bot", "settings": {"token": "123456:SECRET"}, "limits": ["20/min", "200/h"],
             "interval": "2s", "jitter": 0.2}),
    _row("DELETE", "/accounts/{name}", "Accounts", "Delete an account", "admin", _GONE, query=_TENANT,
         told="Messages that wait for it are held, not dropped.", conflicts=True),
    _row("POST", "/accounts/{name}/pause", "Accounts", "Pause an account", "operator", _ok("Account"),
         query=_TENANT),
    _row("POST", "/accounts/{name}/resume", "Accounts", "Resume an account", "operator", _ok("Account"),
         query=_TENANT),
    _row("POST", "/accounts/{name}/probe", "Accounts", "Ask the provider whether an account works", "operator",
         _ok("Account"), query=_TENANT),
    _row("POST", "/accounts/{name}/test", "Accounts", "Send a test message", "operator", _ok("Message"),
         query=_TENANT, body="TestMessage", example={"to": "100200300", "text": "Hello"}),
    _row("GET", "/accounts/{name}/queue", "Accounts", "What waits for an account", "viewer", _ok("AccountQueue"),
         query=_TENANT),
    _row("DELETE", "/accounts/{name}/queue", "Accounts", "Clear an account's messages", "operator",
         _ok("Removed"), query=("status", "tenant"), told="`status` is for example pending, retrying or failed; without it, all but what is being sent."),
    _row("GET", "/limits", "Limits", "List limits", "viewer", _ok("Page"), query=_TENANT),
    _row("POST", "/limits/simulate", "Limits", "Simulate limits", "viewer", _ok("Figures"), body="Simulation",
         example={"limits": ["20/min", "200/h"], "count": 1000},
         told="When the first and the last of so many messages would leave an account with such limits."),
    _row("GET", "/limits/{name}", "Limits", "Show a limit", "viewer", _ok("Limit"), query=_TENANT),
    _row("PUT", "/limits/{name}", "Limits", "Create or replace a limit", "admin", _ok("Limit"),
         query=_TENANT, body="NewLimit", example={"scope": {"queue": "sms"}, "limit": "100/s"}),
    _row("DELETE", "/limits/{name}", "Limits", "Delete a limit", "admin", _GONE, query=_TENANT),
    _row("GET", "/queues", "Queues", "List queues", "viewer", _ok("Page"), query=_TENANT),
    _row("GET", "/queues/status", "Queues", "Counts of all queues", "viewer", _ok("QueueStatus"), query=_TENANT),
    _row("PUT", "/queues/{name}", "Queues", "Create or change a queue", "admin", _ok("NewQueue"), body="NewQueue", example={"concurrency": 20, "max_attempts": 3, "timeout": "30s"}),
    _row("GET", "/queues/{name}/jobs", "Queues", "List jobs of a view", "viewer", _ok("Page"),
         query=("status", "start", "end", "tenant"),
         told="`status` is waiting, active, completed, failed, delayed or paused."),
    _row("GET", "/queues/{name}/jobs/{id}", "Queues", "Show a job", "viewer", _ok("Message"), query=_TENANT),
    _row("DELETE", "/queues/{name}/jobs/{id}", "Queues", "Remove a job", "operator", _GONE, query=_TENANT,
         conflicts=True),
    _row("POST", "/queues/{name}/jobs/{id}/retry", "Queues", "Retry a job", "operator", _ok("Message"),
         query=_TENANT, conflicts=True),
    _row("POST", "/queues/{name}/pause", "Queues", "Pause a queue", "operator", _ok("Figures")),
    _row("POST", "/queues/{name}/resume", "Queues", "Resume a queue", "operator", _ok("Figures")),
    _row("DELETE", "/queues/{name}/empty", "Queues", "Remove everything that waits", "operator", _ok("Removed"),
         query=_TENANT),
    _row("POST", "/queues/{name}/clean", "Queues", "Remove old jobs", "operator", _ok("Removed"), query=_TENANT,
         body="Clean", example={"grace": 3_600_000, "type": "completed"}),
    _row("GET", "/templates", "Templates", "List templates", "viewer", _ok("Page"), query=_TENANT),
    _row("GET", "/templates/{name}", "Templates", "Show a template", "viewer", _ok("Template"), query=_TENANT),
    _row("PUT", "/templates/{name}", "Templates", "Create or replace a template", "admin", _ok("Template"),
         query=_TENANT, body="NewTemplate", example={"subject": "Hello", "text": "Hello {{ name }}"}),
    _row("DELETE", "/templates/{name}", "Templates", "Delete a template", "admin", _GONE, query=_TENANT),
    _row("POST", "/templates/{name}/preview", "Templates", "Preview a template", "viewer", _ok("Template"),
         query=_TENANT, body="Preview", example={"variables": {"name": "Ada"}}),
    _row("GET", "/stats/overview", "Watching", "Totals, rates and times", "viewer", _ok("Figures"), query=_TENANT),
    _row("GET", "/stats/realtime", "Watching", "The last moments", "viewer", _ok("Figures"), query=_TENANT),
    _row("GET", "/stats/failures", "Watching", "Why messages fail", "viewer", _ok("Figures"),
         query=("by", "tenant")),
    _row("GET", "/scheduler/status", "Watching", "Whether messages are being released", "viewer",
         _ok("Scheduler")),
    _row("POST", "/scheduler/start", "Watching", "Start releasing", "operator", _ok("Scheduler")),
    _row("POST", "/scheduler/stop", "Watching", "Stop releasing", "operator", _ok("Scheduler"),
         told="Calls in flight finish; messages are still taken in."),
    _row("GET", "/events", "Watching", "Events as they happen", "viewer", {
        200: Reply("", "Server-sent events: `id`, `event`, `data` (JSON), a comment every 15 s.",
                   'id: 42\nevent: message-sent\ndata: {"id":"01jq8x5v7m2k9","ok":true}\n\n',
                   kinds=("text/event-stream",))},
        query=("types", "queue", "account", "campaign", "last_event_id", "tenant"),
        told="An event of type `gap` says that some were missed."),
    _row("GET", "/keys", "System", "List keys", "admin", _ok("Page"), told="Never the keys themselves."),
    _row("POST", "/keys", "System", "Make a key", "admin", {201: Reply("NewKey", "The key, shown once.")},
         body="Key", example={"name": "shop", "role": "sender", "tenant": "shop"}, conflicts=True),
    _row("DELETE", "/keys/{name}", "System", "Revoke a key", "admin", _GONE),
    _row("GET", "/nodes", "System", "The processes that share the store", "viewer", _ok("Page"),
         told="A server that has its store to itself is the only one, with everything."),
    _row("GET", "/doctor", "System", "Check the installation", "admin", _ok("Figures"), query=("reach",),
         told="Each check has a `status` (pass, warn or fail), a line of what was found, and a line of advice."),
    _row("GET", "/backups", "System", "List back-ups", "admin", _ok("Page"), told="Newest first."),
    _row("POST", "/backups", "System", "Back the store up", "admin",
         {201: Reply("Backup", "The copy is whole, checked and on disk.")}, body="NewBackup",
         example={"name": "before-the-move.db"}, conflicts=True,
         told="A consistent copy in the folder `backups` of the data folder, made while messages are taken in and "
              "sent. It begins on hold wherever it is started."),
    _row("GET", "/hold", "System", "Whether everything is on hold", "viewer", _ok("Hold")),
    _row("POST", "/hold", "System", "Put everything on hold", "operator", _ok("Hold"), body="NewHold",
         example={"reason": "moving to another machine"},
         told="Nothing is sent until it is released, over restarts as well. Calls in flight finish; messages are "
              "still taken in."),
    _row("POST", "/hold/release", "System", "Release the hold", "admin", _ok("Released"), query=("dry_run",),
         body="Release", example={"cancel_before": "2030-01-01T12:00:00Z"}, conflicts=True,
         told="With `cancel_before`, what waits and was due before that moment is cancelled first, as far as it "
              "came with the copy: the original may have sent it. A dry run tells how many that would be."),
    Operation("GET", "/health/live", "System", "Whether the process lives", None, _ok("Health")),
    Operation("GET", "/health/ready", "System", "Whether messages are accepted and sent", None, {
        200: Reply("Health", "They are."), 503: Reply("Health", "They are not, and why.")}),
    Operation("GET", "/metrics", "System", "Metrics for Prometheus", "viewer", {
        200: Reply("", "Prometheus text.", kinds=("text/plain",))},
        told="A server that listens on a loopback address alone asks for no key.", open_at_home=True),
    Operation("GET", "/openapi.json", "System", "This document", None, _ok("Figures")),
    Operation("GET", "/docs", "System", "This document as a page", None, {
        200: Reply("", "A page.", kinds=("text/html",))}),
    Operation("GET", "/", "System", "The start page", None, {200: Reply("", "A page.", kinds=("text/html",))}),
)  # fmt: skip
