"""E16: the provider is down for ten minutes, with a backlog, and then is back."""

from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.outage import ACCOUNTS, AFTER, LONGEST_S, SLOTS, outage, pause, probes_within

RATE = 25
JITTER = 1.25


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    messages, down_s = scale.count(20_000, 2_000), scale.count(600, 20)
    found = outage(folder, messages, down_s, RATE, broken)
    longest = min(LONGEST_S, pause(probes_within(down_s))) * JITTER
    lost, few = max(
        ((lost, AFTER - 1 + found.crossed[name]) for name, lost in found.attempts.items()),
        key=lambda pair: pair[0] - pair[1],
    )
    return [
        no_less(f"messages for {ACCOUNTS} accounts", found.messages, messages // ACCOUNTS * ACCOUNTS),
        no_more(f"attempts while down, most of an account in {down_s} s", max(found.probes.values()),
                found.most_probes),
        no_more("attempts that were under way when it went down, most of an account", max(found.asked.values()),
                AFTER + SLOTS - 1),
        no_less("shortest gap of two probes as a share of its pause", round(found.hasty, 3), 1.0),
        no_less(f"how far chance spreads a pause of {found.pauses:g} s, as a share of it", round(found.spread, 3), 0.06),
        no_more("attempts that messages lost by it, worst account", lost, few),
        no_more("accounts that do not show it", len(found.shown), 0),
        no_more("first success after the return", round(found.first_s, 2), longest + scale.timing(1, 3), " s"),
        no_more("sends before a slow start allows them", found.hurried, 0),
        no_more("busiest second / mean, worst account", round(found.busiest, 2), scale.timing(2, 2.5), timing=True),
        no_more("busiest second / mean, all accounts", round(found.busiest_all, 2), scale.timing(2, 3), timing=True),
        no_more("drain time / ideal, worst account", round(found.drain, 3), scale.timing(1.2, 1.5), timing=True),
        no_more("lost", found.lost, 0),
        no_more("sent twice", found.twice, 0),
        no_more("not completed", found.messages - found.states.get("completed", 0), 0),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E16",
    title="a provider down for ten minutes with a backlog, then back",
    run=run,
    breaks={
        "no-circuit": "nobody notices that a provider is down",
        "eager-probes": "a provider that is down is asked ten times as often",
        "pauses-in-step": "chance adds nothing to the pauses",
        "costly-outages": "what fails while the circuit is open loses an attempt",
        "no-slow-start": "the first success lets everything go",
    },
)
