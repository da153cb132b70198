"""How the C library keeps memory: large pieces go back to the system as soon as they are free."""

import ctypes
from contextlib import suppress
from typing import Final

_MMAP_THRESHOLD: Final = -3
"""`M_MMAP_THRESHOLD` of glibc's malloc.h."""
_LARGE: Final = 256 * 1024


def give_large_pieces_back() -> None:
    """Take pieces of 256 KiB and more from the system each time, instead of keeping them for later.

    glibc raises its own threshold to the size of each such piece that is freed, up to 32 MiB (mallopt(3)). So after the
    first large batch the texts of commits and answers would stay in the heap of every thread that ever had one. Other C
    libraries have no such setting, and nothing is done.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
