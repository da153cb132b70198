"""Secrets at rest: AES-256-GCM under a key in a file that only its owner can read."""

import base64
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from paceline.model.errors import SchemaError

_PREFIX = "enc:v1:"
_NONCE = 12


class Vault:
    """Encrypts and decrypts settings. Where a value belongs is part of what is authenticated."""

    def __init__(self, key: bytes) -> None:
        """`key` has 32 bytes."""
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, path: Path) -> "Vault":
        """Read the key file, or make one that only the owner can read."""
        try:
            return cls(base64.b64decode(path.read_bytes()))
        except FileNotFoundError:
            key = secrets.token_bytes(32)
            write_private(path, base64.b64encode(key))
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
    """Write a new file that only its owner can read, flushed; an existing one is never overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
