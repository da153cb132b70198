"""The shapes of the OpenAPI document, as data."""

from typing import Any, Final

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to a shape."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(told: str = "", **more: Any) -> Schema:
    """A text."""
    return _told({"type": "string", **more}, told)


def number(told: str = "", **more: Any) -> Schema:
    """A whole number."""
    return _told({"type": "integer", **more}, told)


def real(told: str = "", **more: Any) -> Schema:
    """A number."""
    return _told({"type": "number", **more}, told)


def yes(told: str = "") -> Schema:
    """True or false."""
    return _told({"type": "boolean"}, told)


def many(item: Schema, told: str = "", **more: Any) -> Schema:
    """A list."""
    return _told({"type": "array", "items": item, **more}, told)


def either(*kinds: Schema, told: str = "") -> Schema:
    """One of several types."""
    return _told({"anyOf": list(kinds)}, told)


def maybe(kind: Schema, told: str = "") -> Schema:
    """A type, or null."""
    return either(kind, {"type": "null"}, told=told)


def anything(told: str = "") -> Schema:
    """A JSON object whose members depend on something else."""
    return _told({"type": "object", "additionalProperties": True}, told)


def json_value(told: str = "") -> Schema:
    """Any JSON value."""
    return _told({}, told)


def shape(told: str, fields: dict[str, Schema], required: str = "", *, closed: bool = False) -> Schema:
    """An object; `closed` ones refuse other fields."""
    schema: Schema = {"type": "object", "description": told, "properties": fields}
    if required:
        schema["required"] = required.split()
    if closed:
        schema["additionalProperties"] = False
    return schema


def _told(schema: Schema, told: str) -> Schema:
    return {**schema, "description": told} if told else schema


STATES: Final = ["scheduled", "pending", "processing", "retrying", "completed", "failed", "cancelled", "expired",
                 "uncertain"]  # fmt: skip
_MOMENT: Final = {"type": "string", "format": "date-time"}
_DURATION: Final = either(real(), text(), told="Seconds, or text such as `30s`, `5m`, `2h`.")
_PRIORITY: Final = either(
    number(minimum=0, maximum=10), text(enum=["critical", "high", "normal", "low", "background"]),
    told="0 (least) to 10 (most urgent), or a name.",
)  # fmt: skip
_LIMITS: Final = many(
    text(examples=["20/min"]), "Limits as text, such as `20/min`, `200/h`, `5/2s`; all hold."
)

_NEW: Final[dict[str, Schema]] = {
    "channel": text("How to send, for example `smtp`, `telegram-bot`, `webhook`."),
    "to": either(text(), many(text()), number(), told="The recipient; a list only for e-mail."),
    "subject": text("For channels that have one."),
    "text": text("The plain text."),
    "html": text("The HTML text, for e-mail."),
    "attachments": many(anything(), "For e-mail: `filename`, `content` (base64), `type`."),
    "template": text("Name of a template, in place of a text."),
    "variables": anything("What the template is filled with."),
    "payload": json_value("The body of a webhook, command or job: any JSON."),
    "queue": text("Default: the channel's."),
    "kind": text("A label: the name of a job or the type of a message."),
    "account": text("Send through this account only."),
    "pool": text("Send through any account of this pool; default `default`."),
    "priority": _PRIORITY,
    "scheduled_at": {**_MOMENT, "description": "Not before this moment."},
    "delay": either(real(), text(), told="Not before so much time has passed: a duration, or `short`, `medium`, "
                    "`long`, `very-long`."),
    "expires_at": {**_MOMENT, "description": "Never after this moment."},
    "max_attempts": number("Default: the queue's.", minimum=1, maximum=100),
    "timeout": {**_DURATION, "description": "Of one attempt; default: the queue's."},
    "backoff": anything('`{"type":"exponential","first":2,"factor":2,"max":300,"jitter":0.1}`, '
                        '`{"type":"list","delays":[10,30,60]}` or `{"type":"fixed","delay":60}`.'),
    "source": text("A label: who asks."),
    "group": text("A label: the chat room or the like."),
    "campaign": text("A label: messages of one campaign take turns with those of others."),
    "metadata": anything("Yours; kept and given back."),
    "idempotency_key": text("The same key and body again answers the first message instead of sending twice."),
    "callback_url": text("Told how the message ended.", format="uri"),
    "tenant": text("For keys of the whole installation."),
}  # fmt: skip

SHAPES: Final[dict[str, Schema]] = {
    "NewMessage": shape("A message to take in. Which body fields there are depends on the channel.", _NEW,
                        "channel", closed=True),
    "BatchMessage": shape("As `NewMessage`; what it leaves out comes from `defaults`.", _NEW),
    "Receipt": shape("A message was taken in and is on disk.", {
        "id": text("Ids are ordered by time."), "state": text(enum=STATES),
        "eta": maybe(_MOMENT, "When it leaves, as far as that can be told."),
        "why": many(ref("Reason"), "Why it does not leave at once."),
        "duplicate": yes("The idempotency key was known; `id` is the first message's."),
    }, "id state eta why duplicate"),
    "Reason": shape("One reason why a message waits.", {
        "kind": text("For example `limit`, `flood`, `paused`, `line`."), "text": text("In words."),
        "until": maybe(_MOMENT, "When this reason ends."), "ahead": maybe(number(), "How many go first."),
    }, "kind text"),
    "Message": shape("A message and its state.", {
        "id": text(), "tenant": text(), "state": text(enum=STATES), "channel": text(),
        "to": either(text(), many(text()), {"type": "null"}), "queue": text(), "kind": maybe(text()),
        "account": maybe(text(), "The one that sent it or is to send it."), "pool": text(),
        "priority": number(), "campaign": maybe(text()), "batch": maybe(text()), "group": maybe(text()),
        "source": maybe(text()), "metadata": anything(), "idempotency_key": maybe(text()),
        "callback_url": maybe(text()), "attempts": number("How many counted."), "max_attempts": number(),
        "timeout": real("Seconds."), "backoff": maybe(anything()), "created_at": _MOMENT,
        "scheduled_at": maybe(_MOMENT), "started_at": maybe(_MOMENT), "finished_at": maybe(_MOMENT),
        "expires_at": maybe(_MOMENT), "progress": ref("Progress"), "eta": maybe(_MOMENT),
        "why": many(ref("Reason")), "result": json_value("What the provider or handler answered."),
        "error": maybe(ref("Failure")), "trace_id": text(), "subject": text(), "text": text(), "html": text(),
        "payload": json_value(), "history": many(ref("Attempt"), "Every hand-over, oldest first."),
    }, "id state channel queue"),
    "Progress": shape("How far a message is.", {"percent": real(minimum=0, maximum=100), "step": text()}),
    "Failure": shape("Why it failed.", {
        "class": text("`rate-limited`, `temporary`, `permanent`, `uncertain`, `account-stopped`."),
        "code": maybe(text(), "The provider's code."), "text": maybe(text(), "The provider's words."),
    }),
    "Attempt": shape("One hand-over to an account.", {
        "number": number(), "account": maybe(text()), "handed_over_at": _MOMENT, "started_at": maybe(_MOMENT),
        "finished_at": maybe(_MOMENT), "outcome": text(), "code": maybe(text()), "text": maybe(text()),
        "reference": maybe(text(), "The provider's id."),
    }),
    "MessagePage": shape("A page.", {"items": many(ref("Message")), "next": maybe(text(), "The next cursor.")},
                         "items next"),
    "Page": shape("A page.", {"items": many(anything()), "next": maybe(text(), "The next cursor.")}, "items"),
    "Why": shape("The reasons a message waits.", {
        "id": text(), "state": text(enum=STATES), "eta": maybe(_MOMENT), "reasons": many(ref("Reason")),
    }, "id state reasons"),
    "Trace": shape("Where a message's time went.", {
        "trace_id": text(), "nodes": many(ref("TraceNode")),
        "statistics": shape("Over all nodes.", {
            "total_duration_ms": maybe(number()), "success_rate": maybe(real()),
        }),
    }, "trace_id nodes statistics"),
    "TraceNode": shape("One stretch of the way.", {
        "name": text(enum=["queue", "process", "send", "callback"]), "start": _MOMENT,
        "duration_ms": maybe(number()), "ok": yes(),
    }),
    "NewBatch": shape("Up to 10,000 messages.", {
        "messages": many(ref("BatchMessage"), minItems=1, maxItems=10_000),
        "defaults": {**ref("BatchMessage"), "description": "Fields that each message gets unless it has them."},
    }, "messages", closed=True),
    "BatchReceipt": shape("What became of each message of a batch.", {
        "batch": text("Id of the batch."),
        "accepted": many(shape("One taken in.", {"index": number(), "id": text(), "duplicate": yes()})),
        "rejected": many(shape("One refused.", {"index": number(), "errors": many(ref("FieldProblem"))})),
    }, "batch accepted rejected"),
    "Batch": shape("How far a batch is.", {
        "id": text(), "total": number(), "counts": anything("Messages by state."), "progress": real("Percent."),
        "eta": maybe(_MOMENT, "When the last one leaves."),
    }, "id counts progress"),
    "MessageChanges": shape("What may be changed while a message waits.", {
        "priority": _PRIORITY, "scheduled_at": _MOMENT, "account": text(), "expires_at": maybe(_MOMENT),
    }, closed=True),
    "Settlement": shape("What became of an uncertain message.", {
        "as": text(enum=["completed", "failed", "pending"]),
    }, "as", closed=True),
    "Action": shape("One thing to do to many messages: those of a filter, or those with these ids.", {
        "action": text(enum=["retry", "cancel", "delete", "patch"]),
        "filter": anything("As the parameters of the list."), "ids": many(text(), maxItems=10_000),
        "everything": yes("An empty filter really means all messages."),
        "set": {**ref("MessageChanges"), "description": "For `patch`."},
        "expect": number("Refused when another number of messages matches."),
    }, "action", closed=True),
    "ActionResult": shape("What an action did, or would do.", {
        "action": text(), "matched": number(), "changed": number("Without a dry run."),
        "would_change": number("With a dry run."), "skipped": number("Whose state does not allow it."),
        "examples": many(ref("Message"), "With a dry run, at most ten."),
    }),
    "NewAccount": shape("A sending identity.", {
        "channel": text(), "settings": anything("As the channel wants them; secrets are never shown again."),
        "limits": _LIMITS, "interval": {**_DURATION, "description": "Least time between two sends."},
        "jitter": real("Random part of the interval.", minimum=0, maximum=1), "concurrency": number(minimum=1),
        "quota": anything('`{"day":1000,"zone":"Asia/Shanghai"}`, or by `month`.'), "pool": text(),
        "circuit": anything('`{"after":5,"pause":"1s","at_most":"60s"}`: after so many failures in a row that say that the '
                            'provider is down, one message is tried after a pause that doubles. null: never.'),
        "enabled": yes(),
    }, "channel"),
    "Account": shape("An account with its live status.", {
        "name": text(), "channel": text(), "settings": anything("Without secrets."), "limits": _LIMITS,
        "interval": maybe(text(), "A duration, such as `2s`."), "jitter": maybe(real()), "concurrency": number(), "quota": maybe(anything()), "circuit": maybe(anything()),
        "pool": text(), "enabled": yes(),
        "state": text(enum=["ready", "limited", "flooded", "paused", "unhealthy", "over-quota"]),
        "until": maybe(_MOMENT), "reasons": many(ref("Reason")), "waiting": number(),
        "eta": maybe(_MOMENT, "When the last waiting message leaves."),
    }, "name channel state"),
    "AccountQueue": shape("What waits for an account, and what it did.", {
        "account": text(), "pending": number(), "processing": number(), "retrying": number(), "failed": number(),
        "total": number(), "stats": shape("Since ever.", {
            "total": number(), "completed": number(), "failed": number(), "retries": number(), "avg_time": real(),
        }),
    }),
    "TestMessage": shape("A message to send now, under the limits.", {"to": text(), "text": text()}, "to"),
    "NewLimit": shape("A limit that is wider than an account.", {
        "scope": anything('`{"queue":"sms"}`, `{"tenant":".."}`, `{"recipient":"*","channel":"sms"}` or '
                          '`{"global":true}`.'),
        "limit": text("Such as `100/s`."),
    }, "scope limit"),
    "Limit": shape("A limit with its live use.", {
        "name": text(), "tenant": maybe(text()), "scope": anything(), "limit": text(), "maximum": number(),
        "used": maybe(number()), "until": maybe(_MOMENT, "When it opens again."),
    }, "name scope limit"),
    "Simulation": shape("An account that does not exist, and how much it is to send.", {
        "limits": _LIMITS, "interval": _DURATION, "jitter": real(), "concurrency": number(minimum=1),
        "count": number("Messages.", minimum=1), "duration": {**_DURATION, "description": "Of one send."},
    }, "count", closed=True),
    "NewQueue": shape("A queue's settings.", {
        "concurrency": maybe(number()), "max_attempts": number(), "backoff": anything(), "timeout": _DURATION,
        "retention": anything("How long ended messages are kept."),
    }),
    "QueueStatus": shape("The counts of all queues.", {
        "timestamp": _MOMENT,
        "queues": many(shape("One queue.", {"name": text(), "counts": shape("By view.", {
            name: number() for name in ("waiting", "active", "completed", "failed", "delayed", "paused")
        })})),
        "summary": shape("Over all.", {name: number() for name in (
            "totalQueues", "totalWaiting", "totalActive", "totalCompleted", "totalFailed")}),
    }, "timestamp queues summary"),
    "Clean": shape("Which ended jobs to remove.", {
        "grace": number("Only those that ended so many milliseconds ago."), "type": text("Default `completed`."),
    }, closed=True),
    "Removed": shape("How many were removed.", {"removed": number()}, "removed"),
    "NewTemplate": shape("A template.", {"subject": text(), "text": text(), "html": text()}),
    "Template": shape("A template; null where it has none of that part.", {
        "tenant": text(), "name": text(), "subject": maybe(text()), "text": maybe(text()), "html": maybe(text()),
    }),
    "Preview": shape("What to fill a template with.", {"variables": anything()}),
    "Key": shape("A key by its name.", {
        "name": text(), "role": text(enum=["viewer", "sender", "operator", "admin"]),
        "tenant": maybe(text(), "null: the whole installation."),
    }, "name role"),
    "NewKey": shape("A new key; it can be read in this answer and never again.", {
        "name": text(), "role": text(), "tenant": maybe(text()), "key": text(),
    }, "name role tenant key"),
    "NewBackup": shape("A back-up to make.", {
        "name": text("Of the file; from the time when it is missing. A path is refused."),
        "keys": yes("Put secret.key and admin.key beside it (default false)."),
    }, closed=True),
    "Backup": shape("A back-up and what is in it.", {
        "name": text(), "path": text("On the server's machine."), "keys": yes(), "bytes": number(),
        "schema": number(), "messages": number(), "waiting": number(), "under_way": number(),
    }, "name path keys bytes schema messages waiting under_way"),
    "NewHold": shape("A hold to begin.", {"reason": text("What people are told.")}, closed=True),
    "Hold": shape("Whether everything is on hold.", {
        "held": yes(), "cause": text(enum=["restored", "copied", "moved", "rolled-back", "asked"]),
        "text": text(), "since": _MOMENT, "copied_at": maybe(_MOMENT),
    }, "held"),
    "Release": shape("How to release a hold.", {
        "cancel_before": {**_MOMENT, "description": "Cancel what was due before this moment."},
    }, closed=True),
    "Released": shape("What a release did, or with `dry_run` would do.", {
        "held": yes(), "cancelled": number(), "waiting": number(), "would_cancel": number(),
    }, "held"),
    "Scheduler": shape("Whether messages are being released.", {
        "is_running": yes(), "active_services": number(), "total_queued_subtasks": number(),
        "processing_rate": real("A second."), "last_health_check": maybe(_MOMENT),
    }, "is_running"),
    "Figures": anything("Figures by name."),
    "Health": shape("How the server is.", {"status": text()}, "status"),
    "FieldProblem": shape("What is wrong with a field.", {
        "field": text("JSON pointer, or `/` and the parameter's name; empty for the whole body."),
        "problem": text(),
    }, "field problem"),
    "Problem": shape("Why it was refused (RFC 9457).", {
        "type": text(format="uri"), "title": text(), "status": number(), "detail": text(),
        "errors": many(ref("FieldProblem")), "incident": text("With a 500: also in the log."),
    }, "type title status detail"),
}  # fmt: skip
