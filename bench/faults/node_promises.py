"""What several nodes promise together, whatever happens to them and to their database."""

from bench.faults.experiment import Figure, no_less, no_more
from tests.scenarios.node_figures import Figures


def promises(found: Figures, each: int = 10) -> list[Figure]:
    """`each`: so many messages are sent for each fault, or else it stood still."""
    return [
        no_less("taken by the provider (else it stood still)", found.taken, each * found.faults),
        no_more(f"lost of {found.acknowledged} acknowledged", len(found.lost), 0),
        no_more("sent twice and not flagged", len(found.twice), 0),
        no_more("two calls of one message at once", found.two_hands, 0),
        no_more("arrivals beyond a limit, by the receiver's times", found.exceeded, 0),
        no_more("said to be sent, and not", len(found.false_endings) + len(found.foreign), 0),
        no_more("two messages under one idempotency key", len(found.doubled_keys), 0),
        no_more("broken as the audit of the store says", len(found.audit), 0),
    ]
