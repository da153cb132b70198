"""Rules about the tree itself: sizes, what must not be written down, reasons, pins."""

import io
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES = 400

# What must not appear is put together here, so that this file does not contain it either.
_PLACES = ["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"]
MACHINE_PATH = re.compile(rf"(?<![\w.\-/}}])/(?:{'|'.join(_PLACES)})(?![\w\-])(?:/\S*)?")
_REGISTRIES = [
    r"py" + r"pi\.org",
    r"python" + r"hosted\.org",
    r"registry\.npm" + r"js\.org",
    r"registry\.yarn" + r"pkg\.com",
    r"npm" + r"mirror\.com",
    r"proxy\.go" + r"lang\.org",
]
REGISTRY = re.compile("|".join(_REGISTRIES), re.IGNORECASE)

_NOQA = re.compile(r"#\s*(?:ruff:\s*)?noqa(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?(?P<reason>.*)")
_TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore(?:\[[\w\-, ]+\])?(?P<reason>.*)")
_LOCAL_FOLDERS = {".git", ".venv", "build", "dist", "data", "node_modules", "__pycache__"}


def tree() -> list[Path]:
    """Every file that belongs to the project: what git knows or would add, else what a release holds."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        paths = [ROOT / name for name in listed.decode().split("\0") if name]
    else:
        paths = [p for p in ROOT.rglob("*") if not _LOCAL_FOLDERS & set(p.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def lines_of_text() -> Iterator[tuple[str, str]]:
    """Each line of each text file, with the place to show when it is wrong."""
    for path in tree():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of one source file, with their line numbers."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def is_unexplained(comment: str) -> bool:
    """Whether a comment switches a check off without saying why."""
    matches = [m for pattern in (_NOQA, _TYPE_IGNORE) if (m := pattern.search(comment))]
    return any(len(re.findall(r"[^\W\d_]{2,}", match["reason"])) < 2 for match in matches)


def normal(name: str) -> str:
    """A package name as the registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[str]:
    """The names of all dependencies in pyproject.toml, runtime and development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    requirements = [*project["dependencies"], *(one for extra in extras for one in extra)]
    return sorted({normal(re.split(r"[\s<>=!~;\[]", one, maxsplit=1)[0]) for one in requirements})


def pins() -> list[str]:
    """The lines of constraints.txt that are not comments."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_no_source_file_is_longer_than_400_lines() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in SOURCES}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_the_tree_names_no_path_of_one_machine() -> None:
    assert [f"{place}: {line.strip()}" for place, line in lines_of_text() if MACHINE_PATH.search(line)] == []


def test_the_tree_names_no_package_registry() -> None:
    assert [f"{place}: {line.strip()}" for place, line in lines_of_text() if REGISTRY.search(line)] == []


def test_every_exemption_in_the_sources_gives_its_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}: {comment}"
        for path in SOURCES
        for number, comment in comments(path)
        if is_unexplained(comment)
    ]
    assert bare == []


@pytest.mark.parametrize("name", declared())
def test_constraints_pin_every_declared_dependency(name: str) -> None:
    assert name in {normal(pin.partition("==")[0]) for pin in pins()}


@pytest.mark.parametrize("name", declared())
def test_the_dependency_page_names_every_declared_dependency(name: str) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    rows = {normal(row[1]) for row in re.finditer(r"^\| ([\w.\-]+) \|", page, re.MULTILINE)}
    assert name in rows


def test_the_index_lists_every_decision_record() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    records = [path.name for path in sorted(folder.glob("[0-9]*.md"))]
    assert [name for name in records if f"({name})" not in index] == []


def test_constraints_hold_exact_pins_alone() -> None:
    assert [pin for pin in pins() if not re.fullmatch(r"[\w.\-]+==[\w.+!]+", pin)] == []


@pytest.mark.parametrize(
    ("comment", "unexplained"),
    [
        ("# noqa", True),
        ("# noqa: BLE001", True),
        ("# noqa: BLE001, S110", True),
        ("# noqa: BLE001 - why", True),
        ("# noqa: BLE001 - whatever a handler raises is its outcome", False),
        ("# type: ignore[misc]", True),
        ("# type: ignore[misc]  # the library's stub says None", False),
        ("# an ordinary comment", False),
    ],
)
def test_the_guard_of_reasons_tells_reasons_from_none(comment: str, *, unexplained: bool) -> None:
    assert is_unexplained(comment) is unexplained


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cd /" + _PLACES[0] + "/main", True),
        ('path = "/' + _PLACES[1] + '"', True),
        ("/" + _PLACES[2] + "/somebody/data", True),
        ("GET /workers/1", False),
        ("https://example.com/" + _PLACES[2] + "/feed", False),
        ("src/" + _PLACES[0] + "/x", False),
    ],
)
def test_the_guard_of_paths_tells_paths_from_addresses(text: str, *, found: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is found
