"""Large pieces of memory are given back as soon as they are free."""

import subprocess
import sys

import pytest

_GROWTH = """
import ctypes, sys
from paceline.memory import give_large_pieces_back
if sys.argv[1] == "told":
    give_large_pieces_back()
def resident():
    return int(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0])
pieces = [bytearray(4_000_000) for _ in range(8)]   # raises glibc's own threshold when they are freed
del pieces
before = resident()
pieces, kept = [], []
for _ in range(20):
    pieces.append(bytearray(2_000_000))
    kept.append(bytearray(2_000))   # lies between them, so that a heap cannot shrink
del pieces
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps them")
def test_what_was_freed_is_not_kept() -> None:
    def kept(how: str) -> int:
        told = subprocess.run(
            [sys.executable, "-c", _GROWTH, how], capture_output=True, text=True, check=True, timeout=30
        )
        return int(told.stdout)

    assert kept("told") < 4_000 <= kept("not told")
