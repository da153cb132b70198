"""API keys: random, shown once, kept as SHA-256; each with a role, for one tenant or the whole installation."""

import hashlib
import secrets
from pathlib import Path

import msgspec

from paceline.clock import Clock
from paceline.engine.secrets import write_private
from paceline.model import checks
from paceline.model.accounts import DEFAULT_TENANT
from paceline.model.errors import ConflictError, InvalidError, NotFoundError, PacelineError, Problem
from paceline.stores.base import Document, Store

TENANT = DEFAULT_TENANT
ROLES = ("viewer", "sender", "operator", "admin")
_PREFIX = "pk_"


class DeniedError(PacelineError):
    """The key's role does not allow this."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `tenant` None is the whole installation."""

    tenant: str | None
    role: str
    name: str

    def may(self, role: str) -> bool:
        """Whether the caller's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def must(self, role: str) -> None:
        """Refuse unless the caller's role includes `role`.

        Raises:
            DeniedError: it does not.
        """
        if not self.may(role):
            raise DeniedError(f"this needs the role {role}; the key '{self.name}' has the role {self.role}")

    def sees(self, tenant: str) -> bool:
        """Whether things of this tenant exist for the caller."""
        return self.tenant is None or self.tenant == tenant

    @property
    def own(self) -> str:
        """The tenant that new things belong to when none is named."""
        return self.tenant or TENANT


SYSTEM = Caller(None, "admin", "system")


class Keys:
    """The keys in force."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Empty until `load`."""
        self._store, self._clock = store, clock
        self._by_hash: dict[str, Caller] = {}
        self.changes = 0
        """Grows with every change: while it stays the same, so does every answer of `who`."""

    async def load(self) -> None:
        """Read the keys from the store, also again after another node changed them."""
        found: dict[str, Caller] = {}
        for document in await self._store.documents("key"):
            row = msgspec.json.decode(document.body)
            found[row["hash"]] = Caller(row["tenant"], row["role"], document.name)
        self._by_hash = found
        self.changes += 1

    def who(self, secret: str) -> Caller | None:
        """Whose key this is. Looking up a digest tells an attacker nothing about the keys there are."""
        return self._by_hash.get(_digest(secret))

    async def first(self, path: Path) -> bool:
        """With no key at all, make an admin key and write it to `path`; whether it did."""
        if self._by_hash:
            return False
        secret = _PREFIX + secrets.token_urlsafe(32)
        # The file first: a crash in between leaves a file without a key, which the next start replaces.
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before anything is served
        write_private(path, (secret + "\n").encode())
        await self._keep("admin", secret, "admin", None)
        return True

    async def _keep(self, name: str, secret: str, role: str, tenant: str | None) -> None:
        row = {"hash": _digest(secret), "role": role, "tenant": tenant}
        body = msgspec.json.encode(row).decode()
        await self._store.put([Document("key", "", name, body, self._clock.now())])
        self._by_hash[_digest(secret)] = Caller(tenant, role, name)
        self.changes += 1

    async def create(self, caller: Caller, name: str, role: str, tenant: str | None) -> dict[str, str | None]:
        """Make a key. It is in the answer and nowhere else.

        Raises:
            DeniedError, InvalidError, ConflictError: as they say.
        """
        caller.must("admin")
        problems = []
        for field, value in (("name", name), ("tenant", tenant)):
            try:
                if value is not None:
                    checks.check_name(value)
            except ValueError as error:
                problems.append(Problem("/" + field, str(error)))
        if role not in ROLES:
            problems.append(Problem("/role", f"must be one of {', '.join(ROLES)}"))
        if problems:
            raise InvalidError(problems)
        if caller.tenant is not None and tenant != caller.tenant:
            raise DeniedError("a tenant's key can only make keys of that tenant")
        if any(each.name == name for each in self._by_hash.values()):
            raise ConflictError(f"there is a key '{name}' already; revoke it first")
        secret = _PREFIX + secrets.token_urlsafe(32)
        await self._keep(name, secret, role, tenant)
        return {"name": name, "role": role, "tenant": tenant, "key": secret}

    async def revoke(self, caller: Caller, name: str) -> None:
        """Make a key worthless.

        Raises:
            NotFoundError: there is none of that name that the caller may see.
            ConflictError: it is the last one that opens everything: nobody could make a key any more.
        """
        caller.must("admin")
        for digest, each in list(self._by_hash.items()):
            if each.name == name and (caller.tenant is None or each.tenant == caller.tenant):
                if self._is_last(each):
                    raise ConflictError(
                        f"'{name}' is the last admin key of the installation; make another one first"
                    )
                await self._store.remove("key", "", name)
                del self._by_hash[digest]
                self.changes += 1
                return
        raise NotFoundError(f"there is no key '{name}'")

    def _is_last(self, key: Caller) -> bool:
        masters = [each for each in self._by_hash.values() if each.tenant is None and each.role == "admin"]
        return masters == [key]

    def list(self, caller: Caller) -> list[dict[str, str | None]]:
        """Names, roles and tenants; never the keys."""
        caller.must("admin")
        return [
            {"name": each.name, "role": each.role, "tenant": each.tenant}
            for each in self._by_hash.values()
            if caller.tenant is None or each.tenant == caller.tenant
        ]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
