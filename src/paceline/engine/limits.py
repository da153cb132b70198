"""What people do with limits that are wider than one account: set, look, remove, and try out on paper."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from paceline.engine import documents
from paceline.engine.core import Core
from paceline.engine.documents import LIMIT, Draft
from paceline.engine.gates import rule_scope
from paceline.engine.keys import Caller, DeniedError
from paceline.engine.places import wide_of_rule
from paceline.model import checks
from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, NotFoundError, Problem
from paceline.model.limits import Limit, parse_limit
from paceline.model.wide import Use
from paceline.pacing import forecast
from paceline.pacing.lane import Account
from paceline.pacing.scopes import Rule, place_name
from paceline.pacing.windows import NEVER, Spacing, Window

MAX_RULES = 1000
"""Wide limits of one owner: each is looked at for each new flow."""
MAX_LIMITS = 20
MAX_COUNT = 10_000_000
MAX_CONCURRENCY = 1000
MAX_INTERVAL_MS = 31 * 86_400_000


class Limits:
    """The verbs of wide limits. A tenant's key makes and sees limits of that tenant only."""

    def __init__(self, core: Core) -> None:
        """`core` holds the parts of the engine."""
        self._core = core
        self._changing = asyncio.Lock()

    async def put(self, caller: Caller, name: str, body: Any) -> dict[str, Any]:
        """Add or replace a limit. It holds at once, and counts what was sent before.

        Raises:
            InvalidError: the body is wrong.
            DeniedError: the caller is no admin, or would limit others than its own tenant.
            UnavailableError: the store cannot write now, or another node is in the middle of a commit.
        """
        caller.must("admin")
        core, owner = self._core, _owner(caller)
        rule = self._own(caller, documents.read_rule(owner, name, body))
        self._check_channel(rule)
        async with self._changing:
            known = core.directory.rules
            if rule.name not in known and sum(_is_owned(each, owner) for each in known) >= MAX_RULES:
                raise InvalidError(
                    [Problem("/name", f"there are {MAX_RULES:,} limits already; delete some first")]
                )

            async def act() -> None:
                core.directory.rules[rule.name] = rule
                await core.gates.set_rule(rule)

            document = documents.rule_document(owner, name, rule, core.clock.now())
            try:
                await core.change_wide([wide_of_rule(rule)], [], act, [document])
            finally:
                core.dispatcher.wake()
        return (await self._views([rule]))[0]

    async def get(self, caller: Caller, name: str) -> dict[str, Any]:
        """One limit with its live use.

        Raises:
            NotFoundError: the caller has none of that name.
        """
        return (await self._views([self._rule(caller, name)]))[0]

    async def list(self, caller: Caller) -> dict[str, Any]:
        """All limits that the caller may see."""
        seen = sorted(self._core.directory.rules.values(), key=lambda rule: rule.name)
        owner = _owner(caller)
        items = await self._views([rule for rule in seen if not owner or _is_owned(rule.name, owner)])
        return {"items": items, "next": None}

    async def delete(self, caller: Caller, name: str) -> None:
        """Remove a limit and let go who waits for it.

        Raises:
            NotFoundError: the caller has none of that name.
        """
        caller.must("admin")
        core = self._core
        async with self._changing:
            rule = self._rule(caller, name)
            owner, _, short = rule.name.rpartition("/")

            async def act() -> None:
                core.directory.rules.pop(rule.name, None)
                core.gates.drop_rule(rule.name)

            await core.change_wide([], [wide_of_rule(rule).name], act, removed=(LIMIT, owner, short))
        core.dispatcher.wake()

    async def simulate(self, _caller: Caller, body: Any) -> dict[str, Any]:
        """How long `count` messages would take one account under limits that are only given here.

        Raises:
            InvalidError: the body is wrong.
        """
        plan = read_simulation(body)
        # Playing forward takes a while for many messages: beside the loop, so that sending does not wait.
        return await asyncio.to_thread(play, plan, self._core.clock.now())

    def _own(self, caller: Caller, rule: Rule) -> Rule:
        if caller.tenant is None:
            return rule
        if rule.tenant not in ("", caller.tenant):
            raise DeniedError("this key belongs to a tenant and can only limit that tenant")
        return msgspec.structs.replace(rule, tenant=caller.tenant)

    def _check_channel(self, rule: Rule) -> None:
        channels = self._core.directory.channels
        if rule.channel and rule.channel not in channels:
            near = checks.suggestion(rule.channel, channels) or f"; one of {', '.join(sorted(channels))}"
            raise InvalidError([Problem("/scope/channel", "there is no such channel" + near)])

    def _rule(self, caller: Caller, name: str) -> Rule:
        rules = self._core.directory.rules
        # From Python an installation key reaches a tenant's limit as "tenant/name".
        rule = rules.get(documents.rule_name(_owner(caller), name))
        if rule is None:
            near = checks.suggestion(
                name, [_short(each) for each in rules if _is_owned(each, _owner(caller))]
            )
            raise NotFoundError(f"there is no limit '{name[:60]}'{near}")
        return rule

    async def _views(self, rules: Sequence[Rule]) -> Sequence[dict[str, Any]]:
        core = self._core
        if core.store.nodes is None:
            return [self._view(rule, self._use(rule)) for rule in rules]
        names = [place_name("limit", rule.name) for rule in rules]
        used = await core.store.nodes.wide_use(names, core.clock.now())
        return [self._view(rule, used.get(name)) for rule, name in zip(rules, names, strict=True)]

    def _use(self, rule: Rule) -> Use | None:
        gate = self._core.agenda.scopes.gates.get(("limit", rule.name))
        if gate is None or not gate.windows:
            return None
        now = self._core.clock.now()
        opens = gate.opens(now)
        return Use(gate.windows[0].used(now), opens if now < opens < NEVER else None)

    def _view(self, rule: Rule, use: Use | None) -> dict[str, Any]:
        view: dict[str, Any] = {
            "name": _short(rule.name),
            "tenant": rule.name.rpartition("/")[0] or None,
            "scope": rule_scope(rule),
            "limit": str(rule.limit),
            "maximum": rule.limit.maximum,
            "used": None,
            "until": None,
        }
        if use is not None:
            view["used"] = use.used
            if use.until is not None and use.used >= rule.limit.maximum:
                view["until"] = checks.print_time(use.until)
        return view


def _owner(caller: Caller) -> str:
    return caller.tenant or ""


def _short(rule_name: str) -> str:
    return rule_name.rpartition("/")[2]


def _is_owned(rule_name: str, owner: str) -> bool:
    return rule_name.rpartition("/")[0] == owner


# -- on paper


class Simulation(msgspec.Struct, frozen=True):
    """An account that does not exist, and how much it is to send; times in milliseconds."""

    limits: tuple[Limit, ...]
    interval_ms: int
    jitter: float
    concurrency: int | None
    count: int
    duration_ms: int


def read_simulation(body: Any) -> Simulation:
    """The order of a simulation from JSON.

    Raises:
        InvalidError: every problem found.
    """
    draft = Draft(body, ("limits", "interval", "jitter", "concurrency", "count", "duration"))
    plan = {
        "interval_ms": draft.take(
            "interval", lambda v: 0 if v is None else parse_duration(v, most=MAX_INTERVAL_MS)
        ),
        "jitter": draft.take("jitter", lambda v: checks.check_number(v, 0, 10)),
        "concurrency": draft.take("concurrency", _concurrency),
        "count": draft.need("count", lambda v: checks.check_integer(v, 1, MAX_COUNT)),
        "duration_ms": draft.take("duration", lambda v: parse_duration(v, most=checks.MAX_TIMEOUT_MS)),
    }
    limits = _limits(draft)
    draft.check()
    defaults: dict[str, Any] = {"interval_ms": 0, "jitter": 0.0, "concurrency": 1, "duration_ms": 0}
    given = {name: value for name, value in plan.items() if value is not msgspec.UNSET}
    return Simulation(limits=limits, **{**defaults, **given})


def _concurrency(value: object) -> int | None:
    return None if value is None else checks.check_integer(value, 1, MAX_CONCURRENCY)


def _limits(draft: Draft) -> tuple[Limit, ...]:
    given = draft.body.get("limits", [])
    if not isinstance(given, list) or len(given) > MAX_LIMITS:
        draft.problem("/limits", f"must be a list of at most {MAX_LIMITS} limits, like ['20/min', '200/h']")
        return ()
    found = []
    for index, text in enumerate(given):
        try:
            found.append(parse_limit(text))
        except ValueError as error:
            draft.problem(f"/limits/{index}", str(error))
    return tuple(found)


def play(plan: Simulation, now: int) -> dict[str, Any]:
    """When the first and the last leave, and the rate that can be kept up."""
    account = Account("simulation/account", plan.concurrency)
    windows: list[Window] = [Window(limit) for limit in plan.limits]
    if plan.interval_ms:
        windows.append(Spacing(plan.interval_ms, plan.jitter, lambda: 0.5))
    account.windows = tuple(windows)
    first = forecast.moment_of([account], 0, now, plan.duration_ms)
    last = forecast.moment_of([account], plan.count - 1, now, plan.duration_ms)
    assert first is not None and last is not None  # noqa: S101, PT018 - a new account is neither stopped nor paused
    last = max(last, now + _least_ms(plan, plan.count - 1))
    rate = sustained(plan)
    return {
        "count": plan.count,
        "first": checks.print_time(first),
        "last": checks.print_time(last),
        "takes": (last - first) / 1000,
        "sustained": {
            "per_second": _rounded(rate, 1),
            "per_minute": _rounded(rate, 60),
            "per_hour": _rounded(rate, 3600),
            "per_day": _rounded(rate, 86_400),
        },
    }


def _least_ms(plan: Simulation, ahead: int) -> int:
    """How long `ahead` messages take at the least: the forecast plays only the first ones one by one."""
    waits = [ahead // limit.maximum * (limit.span_ms + plan.duration_ms) for limit in plan.limits]
    if plan.interval_ms:
        waits.append(round(ahead * (plan.interval_ms * (1 + plan.jitter / 2) + plan.duration_ms)))
    if plan.concurrency is not None:
        waits.append(ahead // plan.concurrency * plan.duration_ms)
    return max(waits, default=0)


def sustained(plan: Simulation) -> float | None:
    """Sends a second that the narrowest of the limits allows for ever; None where nothing limits them.

    A place in a window is taken from the start of a call until a window's length after its end.
    """
    rates = [1000 * limit.maximum / (limit.span_ms + plan.duration_ms) for limit in plan.limits]
    if plan.interval_ms:
        rates.append(1000 / (plan.interval_ms * (1 + plan.jitter / 2) + plan.duration_ms))
    if plan.concurrency is not None and plan.duration_ms:
        rates.append(1000 * plan.concurrency / plan.duration_ms)
    return min(rates, default=None)


def _rounded(rate: float | None, seconds: int) -> float | None:
    return None if rate is None else round(rate * seconds, 6)
