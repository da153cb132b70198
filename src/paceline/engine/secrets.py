"""Secrets at rest: AES-256-GCM under a key in a file that only its owner can read."""

import base64
import binascii
import os
import secrets
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paceline.model.errors import SchemaError

_PREFIX = "enc:v1:"
_NONCE = 12
_KEY = 32


class Vault:
    """Encrypts and decrypts settings. Where a value belongs is part of what is authenticated."""

    def __init__(self, key: bytes) -> None:
        """`key` has 32 bytes."""
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Read the key file, or make one that only the owner can read.

        Raises:
            SchemaError: the file holds no key.
        """
        try:
            key = base64.b64decode(path.read_bytes())
        except FileNotFoundError:
            key = secrets.token_bytes(_KEY)
            write_private(path, base64.b64encode(key))
        except binascii.Error:
            key = b""
        if len(key) != _KEY:
            raise SchemaError(f"{path} holds no key any more; restore that file from a copy")
        return cls(key)

    def seal(self, text: str, place: str) -> str:
        """The text encrypted for `place`, for example ``"default/a0/token"``."""
        nonce = os.urandom(_NONCE)
        return (
            _PREFIX
            + base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), place.encode())).decode()
        )

    def unseal(self, sealed: str, place: str) -> str:
        """The text that was sealed for the same place.

        Raises:
            SchemaError: the key file is not the one it was sealed with.
        """
        raw = base64.b64decode(sealed.removeprefix(_PREFIX))
        try:
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], place.encode()).decode()
        except InvalidTag:
            raise SchemaError(
                f"the secret '{place}' cannot be decrypted: secret.key in the data folder is not the one it was "
                "stored with; restore that file, or set the secret again"
            ) from None


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read; an existing one is never overwritten.

    It is there whole or not at all, also after a power cut, and once this returns it stays.

    Raises:
        FileExistsError: there is one already.
        OSError: as the system says; then nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            os.write(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.link(draft, path)  # unlike a rename it refuses to replace
    finally:
        draft.unlink()
    _flush_names(path.parent)


def _flush_names(folder: Path) -> None:
    """A file can be flushed and its name in the folder not: then a power cut takes it."""
    if sys.platform == "win32":
        return  # there the name is flushed with the file
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
