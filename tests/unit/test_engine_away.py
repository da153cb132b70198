"""A store that cannot write for long is tried twice a second, and told of once in a while."""

import asyncio
from typing import Any, cast

from structlog.testing import capture_logs

from paceline.clock import SystemClock
from paceline.engine import dispatcher as module
from paceline.engine.dispatcher import Dispatcher
from paceline.model.errors import UnavailableError
from paceline.pacing.agenda import Agenda
from paceline.pacing.scopes import Scopes

NOTHING: Any = cast("Any", None)


async def test_a_store_that_stays_away_is_not_logged_at_each_try() -> None:
    dispatcher = Dispatcher(NOTHING, Agenda(Scopes()), SystemClock(), NOTHING, NOTHING, 10)
    with capture_logs() as lines:
        for _ in range(20):
            dispatcher._step_back(UnavailableError("the disk is full"))
            dispatcher._return()
        assert [line["event"] for line in lines] == ["store away"]
        # Later, while it is still away, it is said again.
        dispatcher._tell_at -= module.TELL_AGAIN_S
        dispatcher._step_back(UnavailableError("the disk is full"))
        assert len(lines) == 2
    dispatcher.pause()
    await asyncio.sleep(0)
