"""Who verifies the callbacks of one provider: the card's schemes, bound to the operator's secrets and to public keys.

It must not know how a signature is computed (signatures) nor what a callback says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from service.clock import Clock
from service.errors import SettingsInvalid
from service.providers.adapters import Adapter
from service.providers.card.card import Card, Operation
from service.providers.client import Outbound
from service.providers.dialect.adapted import AdaptedVerifier
from service.providers.jwks import KeySet
from service.providers.signatures import Judged, Verifier, check_for
from service.settings import ProviderSettings, provider_variable


class KeyRing:
    """All public keys of this process, by where they are published; providers that share an address share the keys."""

    def __init__(self, egress: Outbound, clock: Clock) -> None:
        self._egress = egress
        self._clock = clock
        self._sets: dict[str, KeySet] = {}

    def of(self, url: str) -> KeySet:
        """The keys of an address, made when first asked for; nothing is fetched yet."""
        if url not in self._sets:
            self._sets[url] = KeySet(url, self._egress, self._clock)
        return self._sets[url]


class Verifiers:
    """The verifiers of one provider, one for each operation.

    Args:
        trusts: What is in force for callbacks that nothing proves: `trust` believes them.
        ring: Where public keys are; None: there are none here.
        adapter: What verifies instead, if it can.

    Raises:
        SettingsInvalid: A secret is not of the form that the card's scheme needs.
    """

    def __init__(
        self,
        card: Card,
        settings: ProviderSettings,
        trusts: Literal["fetch", "trust"],
        clock: Clock,
        *,
        ring: KeyRing | None,
        adapter: Adapter | None = None,
    ) -> None:
        self._name = card.name
        self._secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
        self._trusts = trusts == "trust"
        self._clock = clock
        self._keys: dict[str, KeySet] = {}
        self._verifiers: dict[str, Verifier | AdaptedVerifier] = {}
        for name, operation in card.operations.items():
            if adapter is not None and adapter.has("verify"):
                self._verifiers[name] = AdaptedVerifier(adapter, name, tuple(self._secrets), clock)
            else:
                self._verifiers[name] = self._verifier(name, operation, ring)

    def verify(self, operation: str, body: bytes, headers: Mapping[str, str], url: str) -> Judged:
        """What is known of the sender of a callback."""
        return self._verifiers[operation].verify(body, headers, url)

    def wants_keys(self, operation: str) -> bool:
        """Whether callbacks of the operation are judged with public keys."""
        return operation in self._keys

    async def refresh(self, operation: str) -> None:
        """Fetch the public keys of an operation if they are due; never raises for anything that comes of it."""
        await self._keys[operation].refresh()

    def _verifier(self, name: str, operation: Operation, ring: KeyRing | None) -> Verifier:
        # Where nobody can be asked, the token in the callback's path is all the proof there is.
        believes = self._trusts or operation.poll is None
        scheme = operation.callback.verify if operation.callback else "fetch"
        if isinstance(scheme, str):
            return Verifier(None, believes=believes)
        if scheme.scheme == "ed25519":
            if ring is None:
                return Verifier(None, believes=False, why_not="there are no public keys here")
            self._keys[name] = ring.of(scheme.jwks)
        elif not self._secrets:
            missing = f"{provider_variable(self._name, 'WEBHOOK_SECRET')} is not set, so the signature is not checked"
            return Verifier(None, believes=believes, why_not=missing)
        try:
            check = check_for(scheme, self._secrets, self._clock, self._keys.get(name))
        except ValueError as error:
            raise SettingsInvalid([f"{provider_variable(self._name, 'WEBHOOK_SECRET')}: {error}"]) from None
        return Verifier(check, proves_body=scheme.proves_body, believes=believes)
