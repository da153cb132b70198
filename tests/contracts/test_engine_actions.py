"""What people do to messages that are there, on a real store with a real dispatcher."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.clock import ManualClock
from paceline.engine import actions as actions_module
from paceline.engine.keys import DeniedError
from paceline.model.errors import ConflictError, InvalidError, NotFoundError
from paceline.model.outcomes import Permanent, RateLimited, Temporary, Unknown
from tests.contracts.test_engine_support import ACME, ADMIN, OTHER, Engine, role, running

pytestmark = pytest.mark.every_store

START = 1_800_000_000_000


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as made:
        yield made


def problems(error: pytest.ExceptionInfo[InvalidError]) -> dict[str, str]:
    return {each.field: each.problem for each in error.value.problems}


async def in_state(engine: Engine, state: str) -> str:
    """The id of a message that is in this state and stays in it."""
    service = engine.service
    if state in ("scheduled", "cancelled"):
        id_ = await engine.send(delay="1h")
        if state == "cancelled":
            await service.actions.cancel(ADMIN, id_)
    elif state == "retrying":
        engine.script.outcomes = [Temporary("451", "later")]
        id_ = await engine.send(backoff={"type": "fixed", "delay": 3600})
        await engine.event("message-retrying")
    elif state == "processing":
        engine.script.free.clear()
        id_ = await engine.send()
        await engine.script.calls(1)
    elif state == "pending":
        await service.accounts.pause(ADMIN, "a0")
        id_ = await engine.send()
    else:
        if state != "completed":
            engine.script.outcomes = [Permanent("550", "no") if state == "failed" else Unknown("cut")]
        id_ = await engine.send()
        await engine.ended(id_)
    assert await engine.state(id_) == state
    return id_


# -- one message


async def test_a_failed_message_is_retried_with_all_its_attempts(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no such user")]
    id_ = await engine.send()
    assert (await engine.ended(id_))["attempts"] == 1
    view = await engine.service.actions.retry(ADMIN, id_)
    assert (view["state"] in ("pending", "processing", "completed")) and view["id"] == id_
    await engine.script.calls(2)
    done = await engine.ended(id_)
    assert (done["state"], done["attempts"], done["error"]) == ("completed", 1, None)
    assert len(done["history"]) == 2


@pytest.mark.parametrize("state", ["scheduled", "retrying", "failed", "cancelled"])
async def test_retry_sends_what_waits_or_ended_unsent_at_once(engine: Engine, state: str) -> None:
    id_ = await in_state(engine, state)
    before = len(engine.script.sent)
    await engine.service.actions.retry(ADMIN, id_)
    await engine.script.calls(before + 1)
    assert (await engine.ended(id_))["state"] == "completed"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("completed", "was sent"),
        ("processing", "being sent"),
        ("pending", "stands in line"),
        ("uncertain", "settle it"),
    ],
)
async def test_retry_is_refused_where_it_could_send_twice_or_changes_nothing(
    engine: Engine, state: str, words: str
) -> None:
    id_ = await in_state(engine, state)
    with pytest.raises(ConflictError, match=words):
        await engine.service.actions.retry(ADMIN, id_)
    assert await engine.state(id_) == state


async def test_an_expired_message_that_is_retried_loses_the_expiry_that_passed(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        await engine.service.accounts.pause(ADMIN, "a0")
        id_ = await engine.send(expires_at=engine.later(60))
        engine.advance(60)
        assert (await engine.ended(id_))["state"] == "expired"
        await engine.service.accounts.resume(ADMIN, "a0")
        view = await engine.service.actions.retry(ADMIN, id_)
        assert view["expires_at"] is None
        await engine.script.calls(1)
        assert (await engine.ended(id_))["state"] == "completed"


@pytest.mark.parametrize("state", ["scheduled", "retrying", "pending"])
async def test_a_waiting_message_is_cancelled_and_never_sent(engine: Engine, state: str) -> None:
    id_ = await in_state(engine, state)
    calls = len(engine.script.sent)
    view = await engine.service.actions.cancel(role("sender"), id_)
    assert (view["state"], view["eta"]) == ("cancelled", None)
    event = await engine.event("message-failed", lambda e: e.data["state"] == "cancelled")
    assert (event.tenant, event.queue, event.data["id"]) == ("default", "notification", id_)
    await engine.service.accounts.resume(ADMIN, "a0")
    other = await engine.send()
    await engine.ended(other)
    assert [sent for sent, _ in engine.script.sent[calls:]] == [other]


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "processing", "uncertain"])
async def test_only_a_waiting_message_is_cancelled_or_changed(engine: Engine, state: str) -> None:
    id_ = await in_state(engine, state)
    with pytest.raises(ConflictError, match="cannot be cancelled"):
        await engine.service.actions.cancel(ADMIN, id_)
    with pytest.raises(ConflictError, match="cannot be changed"):
        await engine.service.actions.patch(ADMIN, id_, {"priority": 10})


async def test_a_waiter_hears_of_a_cancellation(engine: Engine) -> None:
    id_ = await engine.send(delay="1h")
    waiting = asyncio.ensure_future(engine.ended(id_))
    while not engine.service.messages._waiters:
        await asyncio.sleep(0)
    await engine.service.actions.cancel(ADMIN, id_)
    assert (await waiting)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("as_", "state", "error"),
    [("completed", "completed", None), ("failed", "failed", "deny")],
)
async def test_an_uncertain_message_is_settled(
    engine: Engine, as_: str, state: str, error: str | None
) -> None:
    id_ = await in_state(engine, "uncertain")
    view = await engine.service.actions.settle(ADMIN, id_, as_)
    assert view["state"] == state
    assert (view["error"] or {}).get("class") == error
    await engine.event("message-sent" if state == "completed" else "message-failed", lambda e: e.queue != "")
    counts = (await engine.service.queues.account_queue(ADMIN, "a0"))["stats"]
    assert (counts["completed"], counts["failed"]) == ((1, 0) if state == "completed" else (0, 1))
    with pytest.raises(ConflictError, match="only an uncertain one"):
        await engine.service.actions.settle(ADMIN, id_, as_)


async def test_an_uncertain_message_is_sent_again_when_a_person_says_so(engine: Engine) -> None:
    id_ = await in_state(engine, "uncertain")
    await engine.service.actions.settle(ADMIN, id_, "pending")
    await engine.script.calls(2)
    assert (await engine.ended(id_))["state"] == "completed"


@pytest.mark.parametrize("as_", ["done", None, 5, ["completed"]])
async def test_settling_takes_three_words(engine: Engine, as_: Any) -> None:
    id_ = await in_state(engine, "uncertain")
    with pytest.raises(InvalidError) as error:
        await engine.service.actions.settle(ADMIN, id_, as_)
    assert set(problems(error)) == {"/as"}


@pytest.mark.parametrize("state", ["scheduled", "pending", "retrying", "completed", "failed", "cancelled"])
async def test_a_message_that_waits_or_has_ended_is_deleted(engine: Engine, state: str) -> None:
    id_ = await in_state(engine, state)
    await engine.service.actions.delete(ADMIN, id_)
    with pytest.raises(NotFoundError):
        await engine.service.messages.get(ADMIN, id_)
    totals = (await engine.service.watch.overview(ADMIN))["totals"]
    assert sum(totals.values()) == 0


@pytest.mark.parametrize("state", ["processing", "uncertain"])
async def test_a_message_whose_outcome_is_open_is_not_deleted(engine: Engine, state: str) -> None:
    id_ = await in_state(engine, state)
    with pytest.raises(ConflictError, match="cannot be deleted"):
        await engine.service.actions.delete(ADMIN, id_)


# -- patch


async def test_a_message_with_a_new_priority_overtakes(engine: Engine) -> None:
    engine.script.free.clear()
    first, second, third = [await engine.send() for _ in range(3)]
    await engine.script.calls(1)
    view = await engine.service.actions.patch(role("sender"), third, {"priority": "critical"})
    assert view["priority"] == 10
    assert sum(engine.core.dispatcher.pending.values()) == 2
    engine.script.free.set()
    assert [id_ for id_, _ in await engine.script.calls(3)] == [first, third, second]
    await engine.ended(second)
    assert sum(engine.core.dispatcher.pending.values()) == 0


async def test_a_message_moves_to_another_account_and_back_to_the_pool(engine: Engine) -> None:
    await engine.account("a1")
    await engine.service.accounts.pause(ADMIN, "a0")
    moved, freed = [await engine.send(account="a0") for _ in range(2)]
    view = await engine.service.actions.patch(ADMIN, moved, {"account": "a1"})
    assert (view["account"], view["pinned"]) == ("a1", True)
    await engine.service.actions.patch(ADMIN, freed, {"account": None})
    assert sorted(await engine.script.calls(2)) == sorted([(moved, "a1"), (freed, "a1")])
    assert (await engine.ended(freed))["pinned"] is False


async def test_a_message_of_an_account_that_is_gone_can_be_moved(engine: Engine) -> None:
    await engine.account("a1", pool="side")
    await engine.service.accounts.pause(ADMIN, "a1")
    id_ = await engine.send(account="a1")
    await engine.service.accounts.delete(ADMIN, "a1")
    with pytest.raises(InvalidError, match="no account in pool 'side'"):
        await engine.service.actions.patch(ADMIN, id_, {"account": None})
    await engine.service.actions.patch(ADMIN, id_, {"account": "a0"})
    assert await engine.script.calls(1) == [(id_, "a0")]
    assert (await engine.ended(id_))["pool"] == "default"


@pytest.mark.parametrize("moment", [None, "2001-01-01T00:00:00Z"])
@pytest.mark.parametrize("state", ["scheduled", "retrying"])
async def test_a_moment_that_has_passed_means_now(engine: Engine, state: str, moment: str | None) -> None:
    id_ = await in_state(engine, state)
    calls = len(engine.script.sent)
    await engine.service.actions.patch(ADMIN, id_, {"scheduled_at": moment})
    await engine.script.calls(calls + 1)
    done = await engine.ended(id_)
    assert (done["state"], done["attempts"]) == ("completed", 1 + calls)


@pytest.mark.parametrize("state", ["pending", "scheduled", "retrying"])
async def test_a_waiting_message_is_moved_in_time(engine: Engine, state: str) -> None:
    id_ = await in_state(engine, state)
    moment = engine.later(7200)
    view = await engine.service.actions.patch(ADMIN, id_, {"scheduled_at": moment})
    assert (view["state"], view["scheduled_at"], view["eta"]) == (
        "scheduled",
        moment,
        None if state == "pending" else moment,
    )
    assert sum(engine.core.dispatcher.pending.values()) == 0


async def test_a_moved_message_goes_at_its_new_moment(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        id_ = await engine.send(delay="1h")
        await engine.service.actions.patch(ADMIN, id_, {"scheduled_at": engine.later(10)})
        engine.advance(10)
        assert await engine.script.calls(1) == [(id_, "a0")]


async def test_a_pending_message_is_not_delayed_by_now(engine: Engine) -> None:
    id_ = await in_state(engine, "pending")
    before = await engine.service.messages.get(ADMIN, id_)
    view = await engine.service.actions.patch(ADMIN, id_, {"scheduled_at": None, "priority": 7})
    assert (view["state"], view["scheduled_at"]) == ("pending", before["scheduled_at"])


async def test_more_time_reaches_a_message_that_the_lane_holds_with_the_old_expiry(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        engine.script.free.clear()
        first = await engine.send()
        await engine.script.calls(1)
        second = await engine.send(expires_at=engine.later(60))
        await engine.service.actions.patch(ADMIN, second, {"expires_at": None})
        engine.advance(61)
        engine.script.free.set()
        assert await engine.script.calls(2) == [(first, "a0"), (second, "a0")]
        assert (await engine.ended(second))["state"] == "completed"


async def test_less_time_ends_a_message_earlier(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock(START)) as engine:
        await engine.service.accounts.pause(ADMIN, "a0")
        id_ = await engine.send(expires_at=engine.later(7200))
        await engine.service.actions.patch(ADMIN, id_, {"expires_at": engine.later(60)})
        engine.advance(60)
        event = await engine.event("message-failed")
        assert (event.data["id"], event.data["state"], event.tenant) == (id_, "expired", "default")
        assert sum(engine.core.dispatcher.pending.values()) == 0


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, {""}),
        ([], {""}),
        ({"prioritty": 5}, {"/prioritty"}),
        ({"priority": 11, "expires_at": "soon"}, {"/priority", "/expires_at"}),
        ({"priority": None}, {"/priority"}),
        ({"account": "a9"}, {"/account"}),
        ({"account": "o1"}, {"/account"}),
        ({"expires_at": "2001-01-01T00:00:00Z"}, {"/expires_at"}),
    ],
)
async def test_wrong_changes_change_nothing(engine: Engine, changes: Any, fields: set[str]) -> None:
    await engine.account("o1", channel="other")
    id_ = await engine.send(delay="1h")
    before = await engine.service.messages.get(ADMIN, id_)
    with pytest.raises(InvalidError) as error:
        await engine.service.actions.patch(ADMIN, id_, changes)
    assert set(problems(error)) == fields
    assert await engine.service.messages.get(ADMIN, id_) == before


async def test_an_unknown_field_is_answered_with_the_one_that_was_meant(engine: Engine) -> None:
    id_ = await engine.send(delay="1h")
    with pytest.raises(InvalidError, match="did you mean 'priority'"):
        await engine.service.actions.patch(ADMIN, id_, {"prioritty": 5})


async def test_a_message_cannot_be_moved_behind_its_expiry(engine: Engine) -> None:
    id_ = await engine.send(delay="1h", expires_at=engine.later(7200))
    with pytest.raises(InvalidError, match="/scheduled_at"):
        await engine.service.actions.patch(ADMIN, id_, {"scheduled_at": engine.later(9000)})
    with pytest.raises(InvalidError, match="/expires_at"):
        await engine.service.actions.patch(ADMIN, id_, {"expires_at": engine.later(1800)})
    moved = {"scheduled_at": engine.later(9000), "expires_at": engine.later(9900)}
    assert (await engine.service.actions.patch(ADMIN, id_, moved))["expires_at"] == moved["expires_at"]


async def test_changes_made_at_the_same_moment_all_hold(engine: Engine) -> None:
    id_ = await engine.send(delay="1h")
    expiry = engine.later(9000)
    patch = engine.service.actions.patch
    await asyncio.gather(
        patch(ADMIN, id_, {"priority": 9}),
        patch(ADMIN, id_, {"expires_at": expiry}),
        engine.service.actions.act(ADMIN, {"action": "patch", "ids": [id_], "set": {"account": "a0"}}, False),
    )
    view = await engine.service.messages.get(ADMIN, id_)
    assert (view["priority"], view["expires_at"], view["pinned"]) == (9, expiry, True)


async def test_a_message_that_moves_while_it_is_handed_over_is_sent_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over, reached, go_on = engine.store.hand_over, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await hand_over(*args)

    monkeypatch.setattr(engine.store, "hand_over", slow)
    await engine.account("a0", shared=True, concurrency=5)
    id_ = await engine.send()
    await reached.wait()
    patched = await engine.service.actions.patch(ADMIN, id_, {"priority": 10})
    go_on.set()
    assert patched["state"] == "pending"
    done = await engine.ended(id_)
    assert (done["state"], done["priority"], len(done["history"])) == ("completed", 10, 1)
    assert engine.script.sent == [(id_, "a0")]


# -- who may


async def test_roles(engine: Engine) -> None:
    id_ = await engine.send(delay="1h")
    acts = engine.service.actions
    for call in (acts.cancel(role("viewer"), id_), acts.patch(role("viewer"), id_, {"priority": 1}),
                 acts.delete(role("viewer"), id_), acts.retry(role("sender"), id_),
                 acts.settle(role("sender"), id_, "failed"),
                 acts.act(role("sender"), {"action": "cancel", "ids": [id_]}, False)):  # fmt: skip
        with pytest.raises(DeniedError):
            await call
    assert await engine.state(id_) == "scheduled"


async def test_another_tenants_message_does_not_exist(engine: Engine) -> None:
    id_ = await engine.send(ACME, delay="1h")
    acts = engine.service.actions
    for call in (acts.cancel(OTHER, id_), acts.patch(OTHER, id_, {"priority": 1}), acts.delete(OTHER, id_),
                 acts.retry(OTHER, id_), acts.settle(OTHER, id_, "failed"), acts.retry(OTHER, "nonsense")):  # fmt: skip
        with pytest.raises(NotFoundError):
            await call
    for body in ({"ids": [id_]}, {"filter": {"tenant": "acme"}}, {"filter": {}, "everything": True}):
        answer = await acts.act(OTHER, {"action": "cancel", **body}, False)
        assert (answer["matched"], answer["changed"]) == (0, 0)
    assert await engine.state(id_) == "scheduled"
    assert (await acts.cancel(ACME, id_))["state"] == "cancelled"


# -- many messages


async def test_a_dry_run_tells_and_changes_nothing(engine: Engine) -> None:
    waiting = [await engine.send(delay="1h", group="g") for _ in range(12)]
    await engine.ended(await engine.send(group="g"))
    order = {"action": "cancel", "filter": {"group": "g"}}
    answer = await engine.service.actions.act(ADMIN, order, True)
    assert (answer["matched"], answer["would_change"], answer["skipped"]) == (13, 12, 1)
    assert [each["id"] for each in answer["examples"]] == waiting[:1:-1]
    assert await engine.state(waiting[0]) == "scheduled"


async def test_an_action_reaches_all_of_a_filter_slice_by_slice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions_module, "SLICE", 7)
    mine = [await engine.send(delay="1h", group="g") for _ in range(23)]
    others = await engine.send(delay="1h", group="h")
    order: dict[str, Any] = {
        "action": "cancel",
        "filter": {"group": ["g"], "state": ["scheduled"]},
        "expect": 23,
    }
    answer = await engine.service.actions.act(ADMIN, order, False)
    assert (answer["matched"], answer["changed"], answer["skipped"]) == (23, 23, 0)
    assert {await engine.state(id_) for id_ in mine} == {"cancelled"}
    assert await engine.state(others) == "scheduled"
    again = await engine.service.actions.act(ADMIN, {"action": "delete", "filter": {"group": "g"}}, False)
    assert again["changed"] == 23


async def test_an_action_on_another_number_than_expected_is_refused(engine: Engine) -> None:
    id_ = await engine.send(delay="1h")
    order = {"action": "cancel", "filter": {"state": "scheduled"}, "expect": 2}
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match="1 messages match now, not 2"):
            await engine.service.actions.act(ADMIN, order, dry_run)
    assert await engine.state(id_) == "scheduled"


async def test_ids_are_changed_and_what_cannot_be_is_skipped(engine: Engine) -> None:
    done = await engine.send()
    await engine.ended(done)
    waiting = await engine.send(delay="1h")
    order = {
        "action": "patch",
        "ids": [done, waiting, waiting, "0000000000000", "?"],
        "set": {"priority": "high"},
    }
    answer = await engine.service.actions.act(ADMIN, order, True)
    assert (answer["matched"], answer["would_change"]) == (2, 1)
    answer = await engine.service.actions.act(ADMIN, order, False)
    assert (answer["matched"], answer["changed"], answer["skipped"]) == (2, 1, 1)
    assert (await engine.service.messages.get(ADMIN, waiting))["priority"] == 8


async def test_failed_messages_are_retried_together(engine: Engine) -> None:
    engine.script.outcomes = [Permanent("550", "no")] * 5
    for id_ in [await engine.send() for _ in range(5)]:
        await engine.ended(id_)
    answer = await engine.service.actions.act(
        ADMIN, {"action": "retry", "filter": {"state": "failed"}}, False
    )
    assert answer["changed"] == 5
    assert len(await engine.script.calls(10)) == 10


async def test_an_account_names_its_messages_in_a_filter(engine: Engine) -> None:
    await engine.account("mine", ACME)
    ids = [await engine.send(ACME, delay="1h", account="mine") for _ in range(2)]
    await engine.send(delay="1h", account="a0")
    for caller in (ADMIN, ACME):
        found = await engine.service.messages.find(caller, {"account": ["mine"]}, None, 10)
        assert [each["id"] for each in found["items"]] == ids[::-1]
    assert (await engine.service.messages.find(OTHER, {"account": ["mine"]}, None, 10))["items"] == []
    found = await engine.service.messages.find(ADMIN, {"account": ["acme/mine"]}, None, 10)
    assert len(found["items"]) == 2


@pytest.mark.parametrize(
    ("order", "fields"),
    [
        ({}, {"/action", "/filter"}),
        ([], {""}),
        ({"action": "cancel"}, {"/filter"}),
        ({"action": "cancel", "filter": {}}, {"/filter"}),
        ({"action": "cancel", "filter": {}, "ids": []}, {"/filter", "/ids"}),
        ({"action": "cancel", "filter": {"stat": "failed"}}, {"/filter/stat"}),
        ({"action": "cancel", "filter": {"state": "done"}}, {"/filter/state"}),
        ({"action": "stop", "filter": {"state": "failed"}}, {"/action"}),
        ({"action": "cancel", "ids": "all"}, {"/ids"}),
        ({"action": "cancel", "ids": ["0000000000000"] * 10_001}, {"/ids"}),
        ({"action": "cancel", "ids": ["0000000000000"], "expect": -1}, {"/expect"}),
        ({"action": "cancel", "ids": ["0000000000000"], "set": {}}, {"/set"}),
        ({"action": "cancel", "ids": ["0000000000000"], "sett": {}}, {"/sett"}),
        ({"action": "patch", "ids": ["0000000000000"]}, {"/set"}),
        ({"action": "patch", "ids": ["0000000000000"], "set": {"priority": 11}}, {"/set/priority"}),
        ({"action": "patch", "ids": ["0000000000000"], "set": {"account": "a9"}}, {"/set/account"}),
    ],
)
async def test_a_wrong_order_does_nothing(engine: Engine, order: Any, fields: set[str]) -> None:
    id_ = await engine.send(delay="1h")
    with pytest.raises(InvalidError) as error:
        await engine.service.actions.act(ADMIN, order, False)
    assert set(problems(error)) == fields
    assert await engine.state(id_) == "scheduled"


async def test_everything_is_meant_only_when_it_is_said(engine: Engine) -> None:
    await engine.send(delay="1h")
    order: dict[str, Any] = {"action": "cancel", "filter": {}, "everything": True}
    assert (await engine.service.actions.act(ADMIN, order, False))["changed"] == 1


async def test_a_message_given_back_by_a_flood_can_be_moved_to_another_account(engine: Engine) -> None:
    await engine.account("a1")
    engine.script.outcomes = [RateLimited(3_600_000)]
    id_ = await engine.send(account="a0")
    await engine.event("message-retrying")
    await engine.service.actions.patch(ADMIN, id_, {"account": "a1"})
    assert (await engine.script.calls(2))[1] == (id_, "a1")
