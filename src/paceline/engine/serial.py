"""Changes of the same thing one after the other: each begins with what the one before it has left."""

import asyncio
from weakref import WeakValueDictionary


class Serial:
    """A lock for each key that somebody uses at the moment."""

    def __init__(self) -> None:
        """Nobody changes anything."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: str) -> asyncio.Lock:
        """Hold this while you read, change and store the thing of that key."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock
