"""E01: the server is killed again and again while it takes in and sends."""

from pathlib import Path

from bench.faults.breaks_failpoints import SENDING
from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from tests.scenarios.kills import storm


def run(folder: Path, scale: Scale, broken: str) -> list[Figure]:
    kills = scale.count(1000, 6)
    found = storm(folder, kills, scale.seed, broken, SENDING)
    p99 = sorted(found.recoveries)[len(found.recoveries) * 99 // 100]
    unflagged = len(found.twice) + len(found.foreign) + len(found.false_endings) + found.two_hands
    return [
        no_less("kills survived", found.kills, kills),
        no_less("of them at failpoints", found.at_failpoints.total(), kills // 3),
        no_less("taken by the provider (else it stood still)", found.taken, 50 * kills),
        no_more(f"lost of {found.acknowledged} acknowledged", len(found.lost), 0),
        no_more("sent twice and not flagged", len(found.twice), 0),
        no_more("unflagged of any kind (foreign, false endings, two hands)", unflagged, 0),
        no_more("two messages under one idempotency key", len(found.doubled_keys), 0),
        no_more("webhooks whose id changed", len(found.hooks_changed_key), 0),
        no_more("kills with more uncertain than calls in flight", found.over_in_flight, 0),
        no_less("uncertain in all (else no kill met a call)", found.uncertain, 1),
        no_more("start to ready, 99th of 100", round(p99, 2), scale.timing(2, 6), " s", timing=True),
    ]


EXPERIMENT = Experiment(
    id="E01",
    title="SIGKILL while sending, half at random, half at failpoints",
    run=run,
    breaks={
        "resend-after-crash": "what was under way is sent again, also where a repeat is not safe",
        "yes-before-commit": "senders are told 'yes' before the commit",
    },
)
