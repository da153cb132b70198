"""Time-ordered ids: 63-bit integers inside, 13 characters of Crockford base 32 outside."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {c: i for i, c in enumerate(_ALPHABET)}
_LENGTH = 13
_SEQUENCE_BITS = 15
_NODE_BITS = 6
_SHIFT = _SEQUENCE_BITS + _NODE_BITS


class IdMaker:
    """Makes ids that only ever grow, even when the clock steps back: 32,768 a millisecond for each node."""

    __slots__ = ("_last", "_node")

    def __init__(self, node: int = 0, last: int = 0) -> None:
        """`last` is the greatest id already stored, so that a clock that was set back repeats none."""
        self._node = (node & ((1 << _NODE_BITS) - 1)) << _SEQUENCE_BITS
        self._last = last

    def next(self, now: int) -> int:
        """An id greater than every one before; `now` in milliseconds since 1970."""
        made = (now << _SHIFT) | self._node
        if made <= self._last:
            made = self._last + 1
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
    out = []
    for _ in range(_LENGTH):
        out.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(out))


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
