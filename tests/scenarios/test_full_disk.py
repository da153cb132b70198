"""A full disk: no 'yes', nothing handed to a provider that cannot be written down, and on by itself afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.server import Reply, Server, Witness, drained, text_body, until


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("NOT PROVEN HERE: a full disk needs a small file system, and only root may mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take what is left of the disk, to the last byte."""
    with path.open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 64, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue  # less than that is left


def until_refused(server: Server, size: int) -> tuple[list[str], Reply]:
    """Send messages of this size until one is not taken; the ids of those that were, and the refusal."""
    acknowledged: list[str] = []
    for number in range(3000):
        reply = server.ask("POST", "/api/v1/messages", text_body("bot", f"{size}-{number}-{'x' * size}"))
        if reply.status != 202:
            return acknowledged, reply
        acknowledged.append(reply.json["id"])
    raise AssertionError("the disk is not full")


def test_a_full_disk_is_told_and_costs_no_message(tmp_path: Path, small_disk: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path, small_disk) as server:
        server.start()
        server.account("bot", witness, 1000, limits=["1/s"])
        acknowledged = [server.send(**text_body("bot", f"first-{n}")) for n in range(30)]
        fill(small_disk / "filler")
        # Large ones first; then small ones take whatever room was still left in between.
        for size in (3000, 10):
            told, refused = until_refused(server, size)
            acknowledged += told
            assert refused.status == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["retry-after"]
            assert "disk is full" in refused.json["detail"]
        # The server is not ready while it cannot mark a hand-over, and it makes no call without the mark.
        until(lambda: server.ask("GET", "/health/ready").status == 503, "it says so")
        (small_disk / "filler").unlink()
        until(lambda: server.ask("GET", "/health/ready").status == 200, "it goes on by itself")
        acknowledged.append(server.send(**text_body("bot", "after")))
        server.kill()
        server.start()
        assert sorted(m["id"] for m in server.all_messages()) == sorted(acknowledged)
        server.account("bot", witness, 1000, concurrency=16)
        drained(server, 30)
        uncertain = server.count("uncertain")
        report = witness.report()
    assert report["twice"] == 0
    assert report["taken"] + uncertain >= len(acknowledged)
