"""When will it go: 1,000 limited messages are asked about at once, and the witness tells when they came.

    python -m bench.faults.forecast [--messages 1000] [--quick]

Also prints five answers to 'why does it wait'. Exit code 1 when the median error of the wait is 2 % or more, or
an answer is missing.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.scenarios.foretold import five_reasons, foretell, missing_reasons

GOAL = 0.02
ACCOUNTS = [
    (["12/3s"], 1, False),
    (["50/15s", "5/s"], 4, False),
    (["3/s"], 2, False),
    (["20/5s"], 1, True),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults.forecast", description=__doc__)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="200 messages")
    given = parser.parse_args()
    messages = 200 if given.quick else given.messages
    print(f"python -m bench.faults.forecast --messages {messages}", flush=True)
    with tempfile.TemporaryDirectory(prefix="paceline-forecast-") as folder:
        figures = foretell(Path(folder), messages, ACCOUNTS)
    print("\n".join(figures.lines()))
    with tempfile.TemporaryDirectory(prefix="paceline-why-") as folder:
        found = five_reasons(Path(folder))
    for kind, answer in found.items():
        print(f"why ({kind}): eta {answer['eta']}")
        for reason in answer["reasons"]:
            print(f"    {reason['kind']}: {reason['text']}")
    wrong = missing_reasons(found)
    if wrong or figures.median >= GOAL or figures.no_moment:
        print(f"BROKEN: median error {figures.median:.2%}; wrong answers: {wrong}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
