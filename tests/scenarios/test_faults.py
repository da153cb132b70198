"""The experiments of `bench.faults` that are quick enough for every test run, each in its smallest size."""

from pathlib import Path

import pytest

from bench.faults.breaks_failpoints import INTAKE
from tests.scenarios.clock_steps import DAY, HOUR, clock_steps
from tests.scenarios.contention import contention
from tests.scenarios.due import BEFORE_URGENT, due_at_once
from tests.scenarios.floods import floods
from tests.scenarios.intake_kills import intake_kills
from tests.scenarios.outage import AFTER, outage, probes_within
from tests.scenarios.pauses import pauses
from tests.scenarios.soak import Plan, soak
from tests.scenarios.stops import stops

pytestmark = pytest.mark.every_store


def test_kills_while_taking_in_lose_double_and_halve_nothing(tmp_path: Path) -> None:
    figures = intake_kills(tmp_path, 3, seed=5, failpoints=INTAKE)
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert figures.acknowledged > 100 and figures.at_failpoints.total() >= 1


def test_a_process_that_was_stopped_in_its_tracks_goes_on_without_harm(tmp_path: Path) -> None:
    figures = pauses(tmp_path, 1, seed=5)
    print("\n".join(figures.lines()))
    assert figures.in_flight >= 4
    assert figures.twice == figures.changed_key == figures.neither == figures.false_endings == []
    assert (figures.two_hands, figures.exceeded) == (0, 0)


def test_flood_waits_of_every_kind_are_waited_and_told(tmp_path: Path) -> None:
    figures = floods(tmp_path, 1, 1)
    print("\n".join(figures.lines()))
    assert figures.floods >= 12 and figures.restarts == 1
    assert figures.inside == figures.not_shown == figures.attempts == []
    assert (figures.twice, figures.lost) == (0, 0)


def test_flood_waits_that_a_start_forgets_are_noticed(tmp_path: Path) -> None:
    assert floods(tmp_path, 1, 1, broken="forget-waits").inside != []


def test_very_many_due_at_once_are_paced_and_let_the_urgent_pass(tmp_path: Path) -> None:
    figures = due_at_once(tmp_path, 800, rate=20)
    print("\n".join(figures.lines()))
    assert figures.expired == figures.expiring > 0
    assert figures.expired_sent == []
    assert (figures.early, figures.lost, figures.twice, figures.exceeded) == (0, 0, 0, 0)
    assert max(figures.overtaken) <= BEFORE_URGENT


def test_a_wall_clock_that_is_set_while_the_server_runs_sends_nothing_early_and_stalls_nothing(
    tmp_path: Path,
) -> None:
    figures = clock_steps(tmp_path, [(HOUR, ""), (-HOUR, "kill"), (-5.0, ""), (30 * DAY, "stop")])
    print("\n".join(figures.lines()))
    assert figures.early == figures.expired_sent == []
    assert (figures.refused, figures.exceeded, figures.hasty, figures.twice, figures.lost) == (0, 0, 0, 0, 0)
    assert max(figures.late_s, figures.stall_s) <= 5
    assert figures.retried > 0


def test_scheduled_messages_that_follow_the_clock_of_the_start_are_noticed(tmp_path: Path) -> None:
    assert clock_steps(tmp_path, [(-HOUR, "")], broken="forget-steps").early != []


def test_a_stop_under_load_hands_nothing_over_and_settles_what_it_can(tmp_path: Path) -> None:
    figures = stops(tmp_path, 3, seed=5)
    print("\n".join(figures.lines()))
    assert set(figures.codes) == {0}
    assert (figures.needless, figures.over_in_flight) == (0, 0)
    assert figures.kept.broken == []
    assert figures.in_doubt > 0


def test_everybody_at_the_database_at_once_hears_of_no_lock(tmp_path: Path) -> None:
    figures = contention(tmp_path, 5, seed=5)
    print("\n".join(figures.lines()))
    assert figures.acknowledged > 100 and figures.reads > 10 and figures.exported > 0
    assert figures.errors == figures.lost == []
    assert figures.twice == 0
    assert figures.wal_mib <= 64


@pytest.mark.only_sqlite
def test_a_write_that_reads_first_on_a_second_connection_is_noticed(tmp_path: Path) -> None:
    assert contention(tmp_path, 3, seed=5, broken="deferred-writes").errors != []


def test_memory_files_and_threads_stay_where_they_are(tmp_path: Path) -> None:
    figures = soak(tmp_path, Plan(accounts=50, waiting=5_000, scheduled=2_000, seconds=5), 5)
    print("\n".join(figures.lines()))
    assert figures.sent >= 50
    assert (figures.stored - figures.acknowledged, figures.twice) == (0, 0)
    assert figures.rss_most <= 250
    assert figures.more_files <= 8


def test_a_provider_that_is_down_is_asked_by_one_call_and_costs_nothing(tmp_path: Path) -> None:
    figures = outage(tmp_path, 1200, 5.0, rate=50)
    print("\n".join(figures.lines()))
    assert max(figures.probes.values()) <= figures.most_probes == probes_within(5.0)
    assert figures.hasty >= 1
    for name, lost in figures.attempts.items():
        assert lost <= AFTER - 1 + figures.crossed[name]
    assert figures.shown == [] and figures.hurried == 0
    assert (figures.lost, figures.twice) == (0, 0)
    assert figures.states == {"completed": 1200}
