"""The configuration in memory: accounts, queues, wide limits and templates, as the store's documents say."""

from collections.abc import Mapping

import msgspec

from paceline.channels.base import Channel
from paceline.model.accounts import DEFAULT_TENANT, AccountSpec, QueueSpec
from paceline.model.messages import account_id
from paceline.pacing.scopes import Rule


class Template(msgspec.Struct, frozen=True):
    """A message body with places to fill in."""

    tenant: str
    name: str
    subject: str | None = None
    text: str | None = None
    html: str | None = None


class Directory:
    """Look-ups by name. Writing to the store is `engine.documents`; this is only what is in force."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        """`channels` by name."""
        self.channels = dict(channels)
        self.accounts: dict[str, AccountSpec] = {}
        self.queues: dict[str, QueueSpec] = {}
        self.rules: dict[str, Rule] = {}
        self.templates: dict[tuple[str, str], Template] = {}
        self.lanes: dict[str, int] = {}  # accounts in each lane
        self._private: dict[str, int] = {}  # those of them that other tenants may not use

    def set_account(self, spec: AccountSpec) -> None:
        """Add or replace an account."""
        self.drop_account(spec.id)
        self.accounts[spec.id] = spec
        self.lanes[spec.lane] = self.lanes.get(spec.lane, 0) + 1
        self._private[spec.lane] = self._private.get(spec.lane, 0) + (not spec.shared)

    def drop_account(self, id_: str) -> None:
        """Forget an account."""
        old = self.accounts.pop(id_, None)
        if old is not None:
            self.lanes[old.lane] -= 1
            self._private[old.lane] -= not old.shared
            if not self.lanes[old.lane]:
                del self.lanes[old.lane]
                del self._private[old.lane]

    def is_shared(self, lane: str) -> bool:
        """Whether other tenants may send through a lane: any of its accounts may serve them, so all have to be shared."""
        return lane in self.lanes and not self._private[lane]

    def find_account(self, tenant: str, name: str) -> AccountSpec | None:
        """The account a tenant means by a name: its own, or one that is shared with everybody."""
        own = self.accounts.get(account_id(tenant, name))
        if own is not None:
            return own
        shared = self.accounts.get(account_id(DEFAULT_TENANT, name))
        return shared if shared is not None and shared.shared else None

    def account_names(self, tenant: str, channel: str) -> list[str]:
        """Names of the accounts a tenant may use on a channel: for advice in an error."""
        return [
            spec.name
            for spec in self.accounts.values()
            if spec.channel == channel and (spec.owner == tenant or spec.shared)
        ][:200]

    def queue(self, name: str) -> QueueSpec:
        """The settings of a queue; defaults where there is no such row."""
        return self.queues.get(name) or QueueSpec(name=name)
