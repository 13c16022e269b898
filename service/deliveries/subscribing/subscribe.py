"""The use cases behind `/v1/subscriptions` and the manual retry: checked, sealed, stored, and shown as they then stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from service.clock import Clock, Randomness
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Params
from service.db.writer import Writer
from service.deliveries import delivery_queries
from service.deliveries.statistics.figures import Standings, nothing_known
from service.deliveries.store import RetryDelivery
from service.deliveries.subscribing import queries
from service.deliveries.subscribing.changes import no_subscription
from service.egress import Egress
from service.errors import Conflict, EgressRefused, FieldError, Invalid, NotFound
from service.ids import Ids
from service.schemas.delivery_schemas import DeliveryView
from service.schemas.subscription_schemas import (
    DEFAULT_IN_FLIGHT,
    ChangedSubscriptionView,
    SubscriptionChangeRequest,
    SubscriptionRequest,
    SubscriptionView,
    SubscriptionWithSecretView,
)
from service.schemas.words import DEFAULT_SIGNATURES
from service.signing import new_secret, new_seed
from service.subscriptions.sealed import headers_place, key_place, secret_place
from service.subscriptions.subscription_commands import (
    CreateSubscription,
    DeleteSubscription,
    DisableSubscription,
    EnableSubscription,
    Ping,
    RotateSubscriptionSecret,
    UpdateSubscription,
)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Everything is answered as JSON values in the form of contract 3; NotFound for what is another account's."""

    writer: Writer
    reader: Reader
    egress: Egress
    box: SecretBox
    ids: Ids
    randomness: Randomness
    clock: Clock
    standings: Standings = nothing_known

    async def create(self, account_id: str, request: SubscriptionRequest) -> SubscriptionWithSecretView:
        """Make a subscription; the answer shows its secret, once.

        Raises:
            Invalid: The address may not be reached.
            Conflict: The account has too many.
        """
        await self._check(request)
        subscription_id = self.ids.new("sub")
        secret = request.secret or new_secret(self.randomness)
        columns = self._columns(subscription_id, request)
        sealed = self._sealed(subscription_id, secret)
        seed = self._sealed_seed(subscription_id) if "v1a" in (request.signatures or ()) else None
        await self.writer.run(CreateSubscription(subscription_id, account_id, columns, sealed, seed))
        return {**await self.show(account_id, subscription_id), "secret": secret}

    async def update(
        self, account_id: str, subscription_id: str, request: SubscriptionChangeRequest
    ) -> ChangedSubscriptionView:
        """Change what the request names; the answer says which headers went since the address has another origin."""
        before = await self.show(
            account_id, subscription_id
        )  # before the address is looked up for somebody without one
        await self._check(request)
        columns = self._columns(subscription_id, request)
        changed = {name: value for name, value in columns.items() if name in request.model_fields_set}
        seed = self._sealed_seed(subscription_id) if "v1a" in (request.signatures or ()) else None
        await self.writer.run(UpdateSubscription(subscription_id, account_id, changed, seed))
        after = await self.show(account_id, subscription_id)
        dropped = [] if "headers" in changed else [name for name in before["headers"] if name not in after["headers"]]
        return {**after, "dropped_headers": dropped} if dropped else cast("ChangedSubscriptionView", after)

    async def delete(self, account_id: str, subscription_id: str) -> None:
        """Forget a subscription."""
        await self.writer.run(DeleteSubscription(subscription_id, account_id))

    async def enable(self, account_id: str, subscription_id: str) -> SubscriptionView:
        """Let a disabled subscription have events again."""
        await self.writer.run(EnableSubscription(subscription_id, account_id))
        return await self.show(account_id, subscription_id)

    async def disable(self, account_id: str, subscription_id: str, reason: str) -> SubscriptionView:
        """Let a subscription have no more events until it is enabled again; what comes meanwhile is `skipped`."""
        await self.show(account_id, subscription_id)
        await self.writer.run(DisableSubscription(subscription_id, account_id, reason))
        return await self.show(account_id, subscription_id)

    async def rotate(self, account_id: str, subscription_id: str, grace_s: int) -> SubscriptionWithSecretView:
        """Replace the secret, and the key of `v1a` with it; the answer shows the new secret, once."""
        secret = new_secret(self.randomness)
        sealed = self._sealed(subscription_id, secret)
        seed = self._sealed_seed(subscription_id)
        await self.writer.run(RotateSubscriptionSecret(subscription_id, account_id, sealed, seed, grace_s * 1000))
        return {**await self.show(account_id, subscription_id), "secret": secret}

    async def ping(self, account_id: str, subscription_id: str) -> DeliveryView:
        """Send a `ping`; answered with its delivery."""
        event_id = self.ids.new("evt")
        await self.writer.run(Ping(subscription_id, account_id, event_id))
        delivery_id = await delivery_queries.newest_delivery(self.reader, account_id, subscription_id, event_id)
        return await self.show_delivery(account_id, delivery_id or "")

    async def retry(self, account_id: str, delivery_id: str) -> DeliveryView:
        """Send a delivery again now; one that arrived may be sent again too.

        Raises:
            Conflict: Its subscription is disabled or gone, so that there is nowhere to send it.
        """
        delivery = await self.show_delivery(account_id, delivery_id)
        if delivery["subscription_id"] is not None:
            await self._check_destination(account_id, delivery["subscription_id"])
        await self.writer.run(RetryDelivery(delivery_id, account_id))
        return await self.show_delivery(account_id, delivery_id)

    async def show(self, account_id: str, subscription_id: str) -> SubscriptionView:
        """One subscription."""
        found = await self._find(account_id, subscription_id)
        if found is None:
            raise no_subscription()
        return found

    async def page(self, account_id: str, before_id: str | None, limit: int) -> list[SubscriptionView]:
        """The account's subscriptions, newest first, behind the one with that id."""
        return await queries.list_subscriptions(
            self.reader,
            self.box,
            account_id,
            before_id=before_id,
            limit=limit,
            now_ms=self.clock.now_ms(),
            standings=self.standings,
        )

    async def show_delivery(self, account_id: str, delivery_id: str) -> DeliveryView:
        """One delivery with its attempts."""
        found = await delivery_queries.find_delivery(self.reader, account_id, delivery_id)
        if found is None:
            raise no_delivery()
        return found

    async def _find(self, account_id: str, subscription_id: str) -> SubscriptionView | None:
        return await queries.find_subscription(
            self.reader,
            self.box,
            account_id,
            subscription_id,
            now_ms=self.clock.now_ms(),
            standings=self.standings,
        )

    async def _check(self, request: SubscriptionChangeRequest) -> None:
        """A standing destination may be set up before its name resolves; it is judged again whenever it is dialled."""
        if not request.url:
            return
        try:
            await self.egress.check(request.url, unresolved_ok=True)
        except EgressRefused as error:
            code = f"url_{error.reason.removeprefix('url_')}"
            raise Invalid.of([FieldError("/url", str(error))], code=code) from error

    async def _check_destination(self, account_id: str, subscription_id: str) -> None:
        found = await self._find(account_id, subscription_id)
        if found is None:
            raise Conflict("the delivery's subscription was deleted", code="subscription_deleted")
        if found["status"] != "enabled":
            raise Conflict(
                f"the delivery's subscription is disabled; enable it first with POST /v1/subscriptions/{subscription_id}/enable",
                code="subscription_disabled",
            )

    def _columns(self, subscription_id: str, request: SubscriptionChangeRequest) -> Params:
        """All columns that a request can set, with their defaults."""
        headers = None
        if request.headers:
            headers = self.box.seal(msgspec.json.encode(request.headers), headers_place(subscription_id))
        return {
            "url": request.url,
            "description": request.description or "",
            "events": _json(request.events or ()),
            "providers": _json(request.providers or ()),
            "operations": _json(request.operations or ()),
            "tags": _json(request.tags or ()),
            "headers": headers,
            "rate_per_s": request.rate_per_s,
            "max_in_flight": request.max_in_flight or DEFAULT_IN_FLIGHT,
            "schedule": None if request.schedule is None else _json(request.schedule),
            "signatures": _json(request.signatures or DEFAULT_SIGNATURES),
            "stop_at_expiry": request.stop_at_expiry is True,
        }

    def _sealed(self, subscription_id: str, secret: str) -> bytes:
        return self.box.seal(secret.encode(), secret_place(subscription_id))

    def _sealed_seed(self, subscription_id: str) -> bytes:
        return self.box.seal(new_seed(self.randomness), key_place(subscription_id))


def _json(value: Sequence[Any]) -> str:
    return msgspec.json.encode(value).decode()


def no_delivery() -> NotFound:
    """There is none of that id, or it is another account's."""
    return NotFound("there is no such delivery; ids look like dlv_0199… and are given by GET /v1/deliveries")
