"""Key files: whole or not there, never replaced, and still there after a power cut."""

import os
import stat
from pathlib import Path

import pytest

from paceline.engine.secrets import Vault, write_private
from paceline.model.errors import SchemaError


def test_a_key_file_is_flushed_and_so_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    usual = os.fsync

    def fsync(handle: int) -> None:
        usual(handle)
        there = (tmp_path / "a.key").exists()
        flushed.append(("names" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file") + f" {there}")

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "a.key", b"secret")
    # The name comes after the flushed content, so that no crash leaves an empty file behind.
    assert flushed == ["file False", "names True"]
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_a_key_file_that_could_not_be_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Vault.open(tmp_path / "secret.key")
    assert [each.name for each in tmp_path.iterdir()] == []


def test_an_existing_key_file_is_never_replaced(tmp_path: Path) -> None:
    write_private(tmp_path / "a.key", b"first")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "a.key", b"second")
    assert (tmp_path / "a.key").read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


@pytest.mark.parametrize("content", [b"", b"c2hvcnQ=", b"***"])
def test_a_damaged_key_file_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret.key").write_bytes(content)
    with pytest.raises(SchemaError, match=r"secret\.key holds no key"):
        Vault.open(tmp_path / "secret.key")
