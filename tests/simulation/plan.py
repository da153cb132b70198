"""What one seed draws before anything happens: who sends through what, under which limits, on which machine."""

from random import Random
from typing import Any, NamedTuple

from paceline.pacing.flows import Prefetch

LIMITS = ("1/700ms", "2/s", "3/2s", "5/10s", "12/min", "20/min")
WIDE = ("3/s", "6/5s", "10/10s", "30/min")
NARROW = ("1/2s", "2/5s", "3/10s")
SCOPES: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"global": True}, WIDE), ({"tenant": "t1"}, WIDE), ({"queue": "q1"}, WIDE), ({"channel": "once"}, WIDE),
    ({"recipient": "*"}, NARROW), ({"group": "*"}, NARROW), ({"recipient": "r1"}, NARROW),
    ({"tenant": "t1", "recipient": "*"}, NARROW),
)  # fmt: skip


class Knobs(NamedTuple):
    """The machine, and constants of the product that are made small so that their edges are met."""

    cost_us: int
    coarse: bool
    in_flight: int
    batch: int
    chunk: int
    aside: int
    slice: int
    most_rows: int
    prefetch: tuple[int, int]


class AccountPlan(NamedTuple):
    """An account as its owner sets it."""

    owner: str
    name: str
    body: dict[str, Any]


class Plan(NamedTuple):
    """A whole configuration."""

    knobs: Knobs
    tenants: list[str]
    accounts: list[AccountPlan]
    rules: dict[str, dict[str, Any]]
    queues: dict[str, dict[str, Any]]
    messages: int
    storm_s: int
    faults: int
    narrow: bool  # all messages of a tenant in one flow for each account: long lines


class SmallPrefetch(Prefetch):
    """A share so small that flows are read in many parts."""

    def __init__(self, budget: int, most: int) -> None:
        self.MOST = most
        super().__init__(budget)


def draw_knobs(chance: Random) -> Knobs:
    """A machine."""
    small = chance.random() < 0.5
    coarse = chance.random() < 0.3
    return Knobs(
        # Where timers may ring early, what rings has to take time, as it does.
        cost_us=chance.choice([20, 120]) if coarse else chance.choice([0, 0, 20, 120]),
        coarse=coarse,
        in_flight=chance.choice([3, 20, 2000]) if small else 2000,
        batch=chance.choice([2, 10]) if small else 500,
        chunk=chance.choice([1, 4, 64]) if small else 64,
        aside=chance.choice([0, 1, 5, 20_000]) if small else 20_000,
        slice=chance.choice([2, 7]) if small else 1000,
        most_rows=chance.choice([3, 30]) if small else 5000,
        prefetch=chance.choice([(12, 4), (40, 8)]) if small else (200_000, 256),
    )


def draw_account(chance: Random, owner: str, name: str, *, quota: bool) -> AccountPlan:
    """An account with some limits."""
    body: dict[str, Any] = {
        "channel": chance.choice(["once", "once", "safe"]),
        "concurrency": chance.choice([1, 1, 2, 5, None]),
        "limits": chance.sample(LIMITS, chance.choice([0, 1, 1, 2, 3])),
        "pool": chance.choice(["default", "p2"]),
        "shared": owner == "default",
    }
    if chance.random() < 0.3:
        body["interval"] = chance.choice(["300ms", "1s", "2s"])
        if chance.random() < 0.5:
            body["jitter"] = 0.3
    if quota:
        body["quota"] = {"day": chance.choice([40, 90])}
    return AccountPlan(owner, name, body)


def draw_rule(chance: Random) -> dict[str, Any]:
    """A wide limit."""
    scope, limits = chance.choice(SCOPES)
    return {"scope": dict(scope), "limit": chance.choice(limits)}


def draw_queue(chance: Random) -> dict[str, Any]:
    """A queue's settings."""
    backoff: dict[str, Any] = chance.choice(
        [
            {"type": "fixed", "delay": 1},
            {"type": "exponential", "first": 0.5, "max": 8},
            {"type": "fixed", "delay": 0},
        ]
    )
    return {
        "backoff": backoff, "max_attempts": chance.choice([2, 3, 5]), "timeout": chance.choice([1, 3, 6]),
        "concurrency": chance.choice([None, None, 2, 4]),
    }  # fmt: skip


def draw(chance: Random) -> Plan:
    """Everything."""
    tenants = ["default", "t1", "t2", "t3"][: chance.randrange(1, 5)]
    owners = [chance.choice(["default", *tenants]) for _ in range(chance.randrange(1, 6))]
    quota = chance.random() < 0.15
    accounts = [draw_account(chance, owner, f"a{i}", quota=quota) for i, owner in enumerate(owners)]
    if not any(account.owner == "default" for account in accounts):
        accounts.append(draw_account(chance, "default", "shared", quota=quota))
    return Plan(
        knobs=draw_knobs(chance),
        tenants=tenants,
        accounts=accounts,
        rules={f"w{i}": draw_rule(chance) for i in range(chance.choice([0, 0, 1, 2, 3]))},
        queues={f"q{i}": draw_queue(chance) for i in range(3)},
        messages=chance.choice([40, 100, 200]),
        storm_s=chance.choice([20, 60, 180]),
        faults=chance.choice([0, 4, 12, 30]),
        narrow=chance.random() < 0.4,
    )
