"""Programs and people outside: they send, change, ask, and remember what they were told."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from paceline.model.checks import print_time
from paceline.model.errors import InvalidError, PacelineError, UnavailableError
from paceline.model.ids import to_text
from tests.simulation.node import ADMIN
from tests.simulation.tables import WAITING

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

BAD: tuple[dict[str, Any], ...] = (
    {}, {"channel": "pigeon", "to": "r1", "text": "x"}, {"channel": "once", "to": "r1"},
    {"channel": "once", "text": "x", "to": 5.5}, {"channel": "once", "to": "r1", "text": "x", "priority": 99},
    {"channel": "once", "to": "r1", "text": "x", "delay": "-3s"}, {"channel": "once", "to": "r1", "text": "x", "txt": 1},
)  # fmt: skip
RETRY_US = 700_000


class Clients:
    """All of them."""

    def __init__(self, scenario: "Scenario") -> None:
        """They act on whatever process there is."""
        self._of = scenario
        self._world = scenario.world
        self._chance: Random = scenario.world.chance("clients")
        self.sent = 0
        self._keys = 0
        self.promised: dict[tuple[str, str], str] = {}  # (tenant, key) -> the id that was answered

    # -- sending

    def body(self) -> tuple[str, dict[str, Any]]:
        """A message that has to be taken, and its tenant."""
        chance, scenario = self._chance, self._of
        tenant = chance.choice(scenario.plan.tenants)
        usable = [a for a in scenario.plan.accounts if a.owner in (tenant, "default")]
        account = chance.choice(usable)
        self.sent += 1
        body: dict[str, Any] = {
            "channel": account.body["channel"], "to": f"r{chance.randrange(8)}", "text": f"m{self.sent}",
            "tenant": tenant, "queue": f"q{chance.randrange(4)}", "priority": chance.choice([5, 5, 5, 5, 2, 9]),
        }  # fmt: skip
        if chance.random() < 0.6:
            body["account"] = account.name
        else:
            body["pool"] = account.body["pool"]
        if chance.random() < 0.4:
            body["group"] = f"g{chance.randrange(3)}"
        if chance.random() < 0.3:
            body["campaign"] = f"c{chance.randrange(2)}"
        if chance.random() < 0.2:
            body["delay"] = chance.choice([1, 7, 40])
        if scenario.plan.narrow:
            body.update(queue="q0", priority=5)
            body.pop("campaign", None)
        if chance.random() < 0.1:
            wall = scenario.node.clock.now() if scenario.node else self._world.wall_ms
            body["expires_at"] = print_time(wall + chance.choice([50_000, 90_000]))
        if chance.random() < 0.1:
            body["callback_url"] = "https://sender.example/hook"
        return tenant, body

    def send_one(self) -> None:
        """One message; with an idempotency key it is sent until somebody says 'yes'."""
        tenant, body = self.body()
        if self._chance.random() < 0.35:
            self._keys += 1
            body["idempotency_key"] = f"k{self._keys}"
            self._insist(tenant, body)
        else:
            self._submit(body, self._of.referee.acknowledge, lambda _error: None)

    def _submit(
        self, body: dict[str, Any], told: Callable[[str], None], failed: Callable[[PacelineError], None]
    ) -> None:
        node = self._of.node
        if node is None or node.state != "up":
            failed(UnavailableError("nobody listens"))
            return
        messages = node.service.messages
        node.order(
            f"send {body['text']}", lambda: messages.submit(ADMIN, body), lambda receipt: told(receipt.id),
            lambda error: self._refused(body, error, failed),
        )  # fmt: skip

    def _refused(
        self, body: dict[str, Any], error: PacelineError, failed: Callable[[PacelineError], None]
    ) -> None:
        if isinstance(error, InvalidError) and "expires_at" not in body and not self._of.gone:
            self._world.wrong(10, f"a good message was refused: {error}")
        failed(error)

    def _insist(self, tenant: str, body: dict[str, Any]) -> None:
        key = (tenant, body["idempotency_key"])

        def told(id_: str) -> None:
            first = self.promised.setdefault(key, id_)
            if first != id_:
                self._world.wrong(1, f"the key {key[1]} was answered with {first} and with {id_}")
            self._of.referee.acknowledge(id_)

        def again(error: PacelineError | None) -> None:
            if key not in self.promised and not isinstance(error, InvalidError) and not self._of.calm:
                self._submit(body, told, lambda _error: None)
                self._world.later(RETRY_US, lambda: again(None))

        again(None)

    def send_batch(self) -> None:
        """Several at once; a bad one among them holds nothing back."""
        node = self._of.node
        if node is None or node.state != "up":
            return
        bodies: list[dict[str, Any]] = [self.body()[1] for _ in range(self._chance.randrange(2, 12))]
        bad = self._chance.random() < 0.3
        if bad:
            bodies.insert(self._chance.randrange(len(bodies)), dict(self._chance.choice(BAD)))

        def then(answer: dict[str, Any]) -> None:
            for item in answer["accepted"]:
                self._of.referee.acknowledge(item["id"])
            refused = len(answer["rejected"])
            late = sum("expires_at" in body for body in bodies)
            if not self._of.gone and not int(bad) <= refused <= int(bad) + late:
                self._world.wrong(10, f"{refused} of a batch with {int(bad)} bad messages were refused")

        node.order(f"send {len(bodies)}", lambda: node.service.messages.submit_batch(ADMIN, bodies), then)

    def send_bad(self) -> None:
        """Something that must be refused and change nothing."""
        node = self._of.node
        if node is None or node.state != "up":
            return
        body = dict(self._chance.choice(BAD))

        def taken(_answer: Any) -> None:
            self._world.wrong(10, f"a bad message was taken: {body}")

        def refused(error: PacelineError) -> None:
            if not (isinstance(error, InvalidError) and error.problems):
                self._world.wrong(10, f"a bad message was answered with {type(error).__name__}")

        node.order("send something bad", lambda: node.service.messages.submit(ADMIN, body), taken, refused)

    # -- people

    def meddle(self) -> None:
        """One thing that a person does."""
        node = self._of.node
        if node is None or node.state != "up":
            return
        act = self._chance.choice(
            [
                self._message,
                self._message,
                self._message,
                self._many,
                self._account,
                self._account,
                self._queue,
                self._rule,
            ]
        )
        act()

    def _some_id(self) -> str | None:
        messages = self._of.tables.messages
        if not messages:
            return None
        return to_text(self._chance.choice(list(messages)))

    def _message(self) -> None:
        node, chance, id_ = self._of.node, self._chance, self._some_id()
        if node is None or id_ is None:
            return
        actions = node.service.actions
        later = print_time(node.clock.now() + chance.choice([500, 20_000]))
        patch = chance.choice(
            [{"priority": 7}, {"scheduled_at": later}, {"scheduled_at": None}, {"account": None}]
        )
        what, verb = chance.choice([
            ("cancel", lambda: actions.cancel(ADMIN, id_)), ("retry", lambda: actions.retry(ADMIN, id_)),
            ("patch", lambda: actions.patch(ADMIN, id_, patch)), ("delete", lambda: actions.delete(ADMIN, id_)),
            ("settle", lambda: actions.settle(ADMIN, id_, chance.choice(["completed", "failed", "pending"]))),
        ])  # fmt: skip
        node.order(f"{what} {id_}", verb)

    def _many(self) -> None:
        node, chance = self._of.node, self._chance
        if node is None:
            return
        wanted = {"campaign": "c1"} if chance.random() < 0.5 else {"queue": "q2"}
        body: dict[str, Any] = {"action": chance.choice(["retry", "cancel", "patch"]), "filter": wanted}
        if body["action"] == "patch":
            body["set"] = {"priority": chance.choice([1, 8])}
        node.order(f"{body['action']} of {wanted}", lambda: node.service.actions.act(ADMIN, body, False))

    def _account(self) -> None:
        self._of.change_account(self._chance)

    def _queue(self) -> None:
        node, chance = self._of.node, self._chance
        if node is None:
            return
        name = f"q{chance.randrange(3)}"
        queues = node.service.queues
        verb, what = (queues.pause, "pause") if chance.random() < 0.5 else (queues.resume, "resume")
        self._of.referee.version += 1
        self._of.referee.pace.changed["rules"] = self._world.time.us
        node.order(f"{what} queue {name}", lambda: verb(ADMIN, name))

    def _rule(self) -> None:
        self._of.change_rule(self._chance)

    # -- asking

    def ask(self) -> None:
        """Why a message waits: there is an answer, and it does not go before the moment that is named."""
        node, tables = self._of.node, self._of.tables
        waiting = [id_ for id_, kept in tables.messages.items() if kept.state in WAITING]
        if node is None or node.state != "up" or not waiting:
            return
        id_ = self._chance.choice(waiting)
        version = self._of.referee.version

        def then(answer: tuple[int | None, list[Any]]) -> None:
            self._of.heard(id_, answer, version)

        async def why() -> tuple[int | None, list[Any]]:
            rows = await node.store.get([id_])
            return await node.core.outlook.of(rows[0], node.core.flow_key(rows[0])) if rows else (None, [])

        node.order(f"why {to_text(id_)}", why, then)
