"""Time-ordered ids: 63-bit integers inside, 13 characters of Crockford base 32 outside."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {c: i for i, c in enumerate(_ALPHABET)}
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]  # two characters a look-up: this is on the hot path
_LENGTH = 13
_SEQUENCE_BITS = 15
_NODE_BITS = 6
_SHIFT = _SEQUENCE_BITS + _NODE_BITS
_NODE_MASK = ((1 << _NODE_BITS) - 1) << _SEQUENCE_BITS


class IdMaker:
    """Makes ids that only ever grow, even when the clock steps back: 32,768 a millisecond for each node.

    Each node keeps to the numbers that carry its own; who needs more of them borrows from the next millisecond.
    """

    __slots__ = ("_last", "_node")

    def __init__(self, node: int = 0, last: int = 0) -> None:
        """`last` is the greatest id already stored, so that a clock that was set back repeats none."""
        self._node = (node << _SEQUENCE_BITS) & _NODE_MASK
        self._last = last

    def start_behind(self, last: int) -> None:
        """Make no id up to `last`, the greatest one stored."""
        self._last = max(self._last, last)

    def next(self, now: int) -> int:
        """An id greater than every one before; `now` in milliseconds since 1970."""
        made = (now << _SHIFT) | self._node
        if made <= self._last:
            made = self._last + 1
            if made & _NODE_MASK != self._node:
                made = ((self._last >> _SHIFT) + 1) << _SHIFT | self._node
        self._last = made
        return made


def moment_of(number: int) -> int:
    """The millisecond in which an id was made."""
    return number >> _SHIFT


def first_of(moment: int) -> int:
    """The smallest id that a millisecond can have: the bound for queries by creation time."""
    return moment << _SHIFT


def to_text(number: int) -> str:
    """The public form of an id; sorts like the number."""
    return (
        _ALPHABET[number >> 60]
        + _PAIRS[(number >> 50) & 1023]
        + _PAIRS[(number >> 40) & 1023]
        + _PAIRS[(number >> 30) & 1023]
        + _PAIRS[(number >> 20) & 1023]
        + _PAIRS[(number >> 10) & 1023]
        + _PAIRS[number & 1023]
    )


def from_text(text: str) -> int | None:
    """The number behind a public id, or None when it cannot be one."""
    if len(text) != _LENGTH:
        return None
    number = 0
    for character in text:
        value = _VALUE.get(character)
        if value is None:
            return None
        number = (number << 5) | value
    return number if number < 1 << 63 else None
