"""When will it go, and why not yet (rule 13): the answers, held against what then happens."""

from pathlib import Path

import pytest

from tests.scenarios.foretold import five_reasons, foretell, missing_reasons, moment
from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import Server, Witness, text_body, until

pytestmark = pytest.mark.every_store


def test_the_five_reasons(tmp_path: Path) -> None:
    found = five_reasons(tmp_path)
    assert missing_reasons(found) == [], found


def test_what_is_foretold_comes_about(tmp_path: Path) -> None:
    figures = foretell(tmp_path, 70, [(["8/2s"], 1, False), (["6/s"], 2, False), (["12/2s"], 1, True)])
    print("\n".join(figures.lines()))
    assert figures.no_moment == []
    assert len(figures.told) > 30
    # A busy machine delays an arrival by more than the forecast errs; `bench.faults.forecast` measures closely.
    assert figures.median < 0.2


def test_nothing_goes_before_the_moment_that_is_named(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000, limits=["4/2s"])
        ids = server.send_all([text_body("bot", f"m{n}") for n in range(10)])
        witness.wait(taken=4)
        until(lambda: not server.count("processing"), "the first ones have ended")
        answers = {f"m{n}": server.why(ids[n]) for n in range(4, 10)}
        witness.wait(taken=10)
        arrived = {text: found[0].wall / 1e9 for text, found in taken_by_text(witness.arrivals()).items()}
    for text, answer in answers.items():
        named = [moment(reason["until"]) for reason in answer["reasons"] if reason["until"]]
        assert named, f"{text} waits and cannot say why: {answer}"
        assert arrived[text] >= max(named) - 0.002  # two processes read the wall clock a little apart
    ahead = [answer["reasons"][-1]["ahead"] for answer in answers.values()]
    assert ahead == [None, 1, 2, 3, 4, 5]
