"""How the command line shows things."""

import json
from datetime import timedelta

import pytest

from paceline.cli import show
from paceline.cli.show import Column, cells, cut, json_line, local, plural, safe, spell, table, until, wrapped

COLUMNS = (
    Column("id", 10, least=13),
    Column("state", 9, least=10),
    Column("to", 8, least=11),
    Column("account", 6),
    Column("subject", 3),
)
ROWS = [
    ("0123456789abc", "completed", "contact001@example.com", "news", "A subject that goes on for a while"),
    ("0123456789abd", "failed", "王小明@example.com", "", "主题"),
]


@pytest.mark.parametrize("room", [20, 30, 40, 60, 80, 200])
def test_a_table_fits_the_room_there_is(room: int) -> None:
    lines = table(COLUMNS, ROWS, room)
    assert all(cells(text) <= room for text in lines)
    assert lines[1].startswith("0123456789abc")


def test_in_forty_columns_the_id_the_state_and_the_recipient_remain() -> None:
    lines = table(COLUMNS, ROWS, 40)
    assert lines[0].split() == ["ID", "STATE", "TO"]
    assert lines[1] == "0123456789abc  completed  contact001@ex…"


def test_in_a_pipe_nothing_is_shortened() -> None:
    lines = table(COLUMNS, ROWS, None)
    assert all(text in lines[1] for text in map(str, ROWS[0]))
    assert "…" not in "".join(lines)


def test_columns_line_up_also_with_wide_characters() -> None:
    lines = table(COLUMNS, ROWS, None)
    start = lines[1].index("news")
    assert cells(lines[1][:start]) == cells(lines[2][: lines[2].index("主题")]) - len("account  ")


def test_an_empty_column_takes_no_room() -> None:
    lines = table(COLUMNS, [("1", "failed", "x", "", "")], 80)
    assert lines[0].split() == ["ID", "STATE", "TO"]


def test_figures_stand_to_the_right() -> None:
    lines = table((Column("name", 10), Column("count", 9, right=True)), [("a", "5"), ("b", "1,000")], None)
    assert [text[-5:] for text in lines] == ["COUNT", "    5", "1,000"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("\u2028next", "\\u2028next"),
        ("\ud800", "\\ud800"),
        ("中文 and é stay", "中文 and é stay"),
        (None, ""),
        (3, "3"),
        ({"a": "\x1b"}, '{"a": "\\u001b"}'),
    ],
)
def test_nothing_in_content_acts_on_a_terminal(text: object, shown: str) -> None:
    assert safe(text) == shown


def test_json_for_programs_is_safe_to_look_at_and_reads_back() -> None:
    value = {"text": "\x1b[31m \x9b \u202e 中文"}
    line = json_line(value)
    assert json.loads(line) == value
    assert not any(character in line for character in "\x1b\x9b\u202e")
    assert "中文" in line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0 s"),
        (0.44, "0.4 s"),
        (3, "3 s"),
        (9.97, "10 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_400, "1 day"),
        (3 * 86_400 + 7200, "3 days 2 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert spell(seconds) == words


def test_moments_in_words() -> None:
    here = show.now()
    assert until((here + timedelta(seconds=90.4)).isoformat()) == "in 1 min 30 s"
    assert until((here - timedelta(hours=2, seconds=1)).isoformat()) == "2 h ago"
    assert until("not a moment") == "not a moment"
    assert len(local(here.isoformat())) == len("12:00:00")
    assert len(local((here - timedelta(days=3)).isoformat())) == len("2030-01-01 12:00:00")
    assert local("x\x1b") == "x\\x1b"


@pytest.mark.parametrize(("text", "size"), [("abcdef", 4), ("王小明李", 4), ("ab", 4)])
def test_what_is_cut_fits(text: str, size: int) -> None:
    assert cells(cut(text, size)) <= size


@pytest.mark.parametrize("room", [10, 17, 38])
def test_text_is_wrapped_between_words(room: int) -> None:
    text = (
        "limit 20/min of account news opens in 12 s; averyveryverylongwordwithoutanyspaces 王小明李小红 end"
    )
    lines = wrapped(text, room)
    assert all(cells(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_numbers_have_their_noun() -> None:
    assert (plural(1, "message"), plural(2000, "message")) == ("1 message", "2,000 messages")


def test_content_of_several_lines_cannot_pass_for_another_field(capsys: pytest.CaptureFixture[str]) -> None:
    show.put_fields([("state", "failed"), ("text", "Hello\nstate  completed\n\x1b[2Jbye"), ("empty", "")])
    assert capsys.readouterr().out.splitlines() == [
        "state  failed",
        "text   Hello",
        "       state  completed",
        "       \\x1b[2Jbye",
    ]
