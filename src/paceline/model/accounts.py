"""Accounts, queues and wide limits as configured: parsed from JSON, printed back to it."""

from typing import Any

import msgspec

from paceline.model.backoff import Backoff, Delays, Exponential
from paceline.model.limits import Limit
from paceline.model.messages import account_id, lane_key

DEFAULT_TENANT = "default"
"""Whose things an installation key makes when it names no tenant. Its accounts may be shared."""
DEFAULT_POOL = "default"
DAY_MS = 86_400_000


class QuotaSpec(msgspec.Struct, frozen=True):
    """Sends for each calendar day or month in `zone`; None where there is no such quota."""

    day: int | None = None
    month: int | None = None
    zone: str = "UTC"


class CircuitSpec(msgspec.Struct, frozen=True):
    """When to stop sending because the provider is down: `after` so many failures in a row.

    Then one message is tried after a pause of `pause_ms`, which doubles with each failure up to `most_ms`.
    """

    after: int = 5
    pause_ms: int = 1000
    most_ms: int = 60_000


class AccountSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One sending identity. `settings` are the channel's, secrets decrypted; times in milliseconds.

    `concurrency` calls may be under way at once; None for any number. `shared` lets other tenants use it. Without a
    `circuit` it goes on sending while its provider is down.
    """

    owner: str
    name: str
    channel: str
    settings: dict[str, Any] = {}
    limits: tuple[Limit, ...] = ()
    interval_ms: int = 0
    jitter: float = 0.0
    concurrency: int | None = 1
    quota: QuotaSpec | None = None
    circuit: CircuitSpec | None = CircuitSpec()
    pool: str = DEFAULT_POOL
    enabled: bool = True
    paused: bool = False
    shared: bool = False

    @property
    def id(self) -> str:
        """The account id used inside."""
        return account_id(self.owner, self.name)

    @property
    def lane(self) -> str:
        """The key of the lane it belongs to."""
        return lane_key(self.owner, self.channel, self.pool)


class Retention(msgspec.Struct, frozen=True):
    """How long ended messages are kept (milliseconds) and how many completed ones at most; None for no bound."""

    completed_ms: int | None = 30 * DAY_MS
    completed_count: int | None = None
    failed_ms: int | None = 30 * DAY_MS


class QueueSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A named class of messages and the defaults of its messages."""

    name: str
    concurrency: int | None = None
    max_attempts: int = 3
    backoff: Backoff = Exponential()
    timeout_ms: int = 30_000
    retention: Retention = Retention()
    paused: bool = False


JOB_RETENTION = Retention(DAY_MS, 1000, 7 * DAY_MS)

_JOBS = ("device-operation", "data-export", "report-generation", "image-processing", "log-processing")
_MESSAGES = ("email", "sms", "notification", "telegram", "message.send", "ai.process", "delayed", "callback")


def default_queues() -> dict[str, QueueSpec]:
    """The queues that exist from the first start; users add their own."""
    queues = {name: QueueSpec(name=name, retention=JOB_RETENTION) for name in _JOBS}
    queues |= {name: QueueSpec(name=name) for name in _MESSAGES}
    queues["wechat-message"] = QueueSpec(name="wechat-message", backoff=Delays((10_000, 30_000, 60_000)))
    return queues
