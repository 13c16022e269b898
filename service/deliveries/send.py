"""Sending: one delivery, one request, one recorded attempt.

What the attempt means for its lane stands in `outcomes`, how lanes are filled from the store in `refill`. No connection to the store is held while a request is out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from service import __version__
from service.backoff import JITTER
from service.clock import Clock, Randomness
from service.db.writer import Writer
from service.deliveries import claim_store, ending_store, rescue_store, store
from service.deliveries.claim_store import HeldDeliveries
from service.deliveries.classify import Tried, broken, classify, next_due_ms
from service.deliveries.ending_store import EndDelivery, EndStale
from service.deliveries.lane_feedback import Outcomes
from service.deliveries.lanes.held_bytes import MEMORY, Memory
from service.deliveries.lanes.lane_names import is_one_off, origin_of
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending
from service.deliveries.lanes.quota import SOCKETS, Shares
from service.deliveries.log_lines import Lines
from service.deliveries.recorded import CONTENT_TYPE, described
from service.deliveries.refill import Refill
from service.deliveries.retention.recalled import Recalled
from service.deliveries.statistics.figures import Figures
from service.deliveries.store import RecordAttempt
from service.egress import Egress
from service.errors import EgressError, StoreUnavailable
from service.signing import SIGNATURE_HEADER, Signer, signature_headers
from service.subscriptions.snapshots import Destination

READ_BYTES = 64 * 1024  # of a destination's answer
PATIENCE_S = 86_400.0  # a delivery waits at least so long behind an open breaker, however short its schedule is
STALE_AT_ONCE = 500  # of those that waited too long
USER_AGENT = f"Remora/{__version__}"

_log = structlog.get_logger(__name__)


class Directory(Protocol):
    """Where secrets and standing destinations are looked up."""

    async def account_secrets(self, account_id: str) -> Sequence[bytes]:
        """The account's signing secrets, newest first; more than one during a rotation."""

    async def destination(self, account_id: str, subscription_id: str) -> Destination | None:
        """The subscription as it is now; None if it was deleted or disabled."""

    async def waiting(self, lane_id: str) -> int:
        """How many deliveries wait in the lane."""

    async def disable(self, account_id: str, subscription_id: str, reason: str, url: str) -> None:
        """The destination at this address said that it is gone for good."""


class Observer(Protocol):
    """Who counts attempts (telemetry)."""

    def attempted(self, outcome: str, error_class: str | None, duration_ms: int) -> None:
        """A request ended: `delivered`, `failed` or `dead`, and what went wrong in a word."""

    def delivered(self, since_event_ms: int) -> None:
        """An event arrived for the first time at a destination, so long after it happened."""


@dataclass(frozen=True, slots=True)
class _Target:
    url: str
    signers: Sequence[Signer]
    headers: dict[str, str]
    schedule_s: tuple[float, ...] | None


class Sender:
    """Sends deliveries through the egress door; one for a process."""

    def __init__(
        self,
        *,
        writer: Writer,
        egress: Egress,
        directory: Directory,
        clock: Clock,
        randomness: Randomness,
        owner: str,
        timeout_s: float,
        schedule_s: tuple[float, ...],
        observer: Observer | None = None,
        sockets: int = SOCKETS,
        memory: int = MEMORY,
    ) -> None:
        self._writer = writer
        self._egress = egress
        self._directory = directory
        self._clock = clock
        self._randomness = randomness
        self._timeout_s = timeout_s
        self._schedule_s = schedule_s
        self._observer = observer
        self._lines = Lines(__name__, clock, directory.waiting)
        self.lanes = Lanes(
            self.send,
            clock,
            randomness,
            self._take_back,
            timeout_s=timeout_s,
            shares=Shares(sockets),
            memory=Memory(memory),
        )
        self._outcomes = Outcomes(self.lanes)
        self.figures = Figures(clock, self.lanes)
        self.lease_ms = round(timeout_s * 1000) + 120_000  # the wait in a lane's buffer is under the lease, too
        self.recalled = Recalled(self.lease_ms)
        self._refill = Refill(writer, directory, self.lanes, owner, self.lease_ms)
        store.register(writer, self.lanes.try_now)
        claim_store.register(writer)
        rescue_store.register(writer)
        ending_store.register(writer, self._emptied)

    async def send(self, sending: Sending) -> None:
        """Send one delivery that this process holds, and record the attempt."""
        if sending.give_up_at is not None and self._clock.now_ms() >= sending.give_up_at:
            await self._writer.run(EndDelivery(HeldDeliveries.of(sending), "dead", "result_expired"))
            return
        target = await self._target(sending)
        if target is None:
            # Most were skipped when the subscription went; this one was claimed or left over then.
            await self._writer.run(EndDelivery(HeldDeliveries.of(sending), "skipped", "subscription_disabled"))
            return
        if sending.event_id in self.recalled:
            return
        started_ms = self._clock.now_ms()
        started = self._clock.monotonic()
        headers = signature_headers(target.signers, sending.event_id, self._clock.wall_ms() // 1000, sending.body)
        sent = described(USER_AGENT, headers[SIGNATURE_HEADER], target.headers, target.url)
        headers["content-type"] = CONTENT_TYPE
        headers["user-agent"] = USER_AGENT
        try:
            answer = await self._egress.deliver(
                target.url,
                sending.body,
                {**target.headers, **headers},
                timeout_s=self._timeout_s,
                read_bytes=READ_BYTES,
            )
        except EgressError as error:
            tried = broken(error)
        else:
            tried = classify(answer, self._clock.wall_ms())
        duration_ms = round((self._clock.monotonic() - started) * 1000)
        turned: bool | None = None
        if not tried.delivered and await self._is_outdated(sending, target):
            tried = replace(tried, gone=False)  # what it is sent to from now on was not asked yet
        else:
            turned = self._outcomes.report(sending, tried, duration_ms)
        await self._record(sending, target, tried, started_ms, duration_ms, sent=sent)
        if turned is not None:
            await self._lines.turned(sending, tried, target.url, self.lanes.breakers, down=turned)

    async def _is_outdated(self, sending: Sending, target: _Target) -> bool:
        """Whether the destination was changed while the request was out: that it failed says nothing of the new one."""
        if sending.subscription_id is None:
            return False
        now = await self._directory.destination(sending.account_id, sending.subscription_id)
        return now is None or (now.url, now.headers) != (target.url, target.headers)

    async def _target(self, sending: Sending) -> _Target | None:
        if sending.subscription_id is None:
            secrets = await self._directory.account_secrets(sending.account_id)
            return _Target(sending.url or "", secrets, {}, None)
        destination = await self._directory.destination(sending.account_id, sending.subscription_id)
        if destination is None:
            return None
        signers = destination.signers(self._clock.now_ms())
        return _Target(destination.url, signers, dict(destination.headers), destination.schedule_s)

    async def _record(
        self, sending: Sending, target: _Target, tried: Tried, at_ms: int, duration_ms: int, *, sent: str
    ) -> None:
        now_ms = self._clock.now_ms()
        schedule_s = target.schedule_s if target.schedule_s is not None else self._schedule_s
        due_at, reason = None, None
        ahead = at_ms < sending.due_at  # of its schedule, which it leaves as it was
        if not tried.delivered:
            due_at = self._next_due(sending, tried, schedule_s, now_ms, ahead=ahead)
            if due_at is not None and sending.give_up_at is not None and due_at >= sending.give_up_at:
                due_at, reason = None, "result_expired"
            elif due_at is None:
                reason = "gone" if tried.gone else "schedule_used_up"
        lane = sending.lane
        if sending.url is not None and due_at is not None:
            lane = self.lanes.origins.lane_after_failure(sending.account_id, sending.url, lane)
        attempt = RecordAttempt(
            delivery_id=sending.delivery_id,
            account_id=sending.account_id,
            lane=lane,
            subscription_id=sending.subscription_id,
            epoch=sending.epoch,
            at=at_ms,
            delivered=tried.delivered,
            due_at=due_at,
            status_code=tried.status_code,
            error=tried.error,
            duration_ms=duration_ms,
            response_body=tried.response_body,
            counted=not ahead,
            reason=reason,
            error_class=tried.error_class,
            timing=tried.timing,
            sent=sent,
            url=target.url,
        )
        self._tell(sending, tried, target.url, duration_ms, now_ms, dead=not tried.delivered and due_at is None)
        self.lanes.answered(sending)
        try:
            await self._writer.run(attempt)
        except StoreUnavailable as error:
            # The request was made but is not on record: the lease runs out and it is made again, at least once.
            _log.warning("attempt_not_recorded", delivery=sending.delivery_id, error=str(error))
            return
        if tried.gone and sending.subscription_id is not None:
            await self._directory.disable(
                sending.account_id, sending.subscription_id, "the destination answered 410 Gone", target.url
            )
        if not tried.delivered and self.lanes.breakers.is_open(sending.lane):
            await self._end_stale(sending.lane, now_ms - round(_patience_s(schedule_s) * 1000))

    def _next_due(
        self, sending: Sending, tried: Tried, schedule_s: tuple[float, ...], now_ms: int, *, ahead: bool
    ) -> int | None:
        if not ahead or tried.gone:
            failed = sending.failed_before + 1
            due_at = next_due_ms(tried, failed, schedule_s, now_ms, self._randomness, since_ms=sending.since)
            # Behind an open breaker the steps of a schedule come late; it ends when it would have ended.
            latest = sending.since + round(_patience_s(schedule_s) * (1 + JITTER) * 1000)
            late = due_at is not None and due_at > latest and self.lanes.breakers.is_open(sending.lane)
            return None if late else due_at
        return max(sending.due_at, now_ms + round((tried.retry_after_s or 0.0) * 1000))

    async def _end_stale(self, lane: str, since_ms: int) -> None:
        """What waited behind an open breaker for as long as its schedule lasts, ends as if it had been tried in vain."""
        try:
            while await self._writer.run(EndStale(lane, since_ms, STALE_AT_ONCE)) == STALE_AT_ONCE:
                pass
        except StoreUnavailable as error:
            _log.warning("stale_deliveries_left", lane=lane, error=str(error))  # the next failure comes back to it

    def _emptied(self, lane: str) -> None:
        """Nothing waits behind this breaker; paths come and go, so that those of callback_urls would add up."""
        if is_one_off(lane):
            self.lanes.breakers.forget(lane)

    def _tell(self, sending: Sending, tried: Tried, url: str, duration_ms: int, now_ms: int, *, dead: bool) -> None:
        self.figures.attempted(
            origin_of(sending.lane),  # of callback_urls there may be as many as there are jobs
            delivered=tried.delivered,
            answered_ms=None if tried.status_code is None else duration_ms,
        )
        if self._observer is not None:
            outcome = "delivered" if tried.delivered else "dead" if dead else "failed"
            self._observer.attempted(outcome, tried.error_class, duration_ms)
            if tried.delivered and not sending.failed_before:
                self._observer.delivered(now_ms - sending.event_at)
        if not tried.delivered:
            self._lines.failed(sending, tried, url, dead=dead)

    # -- running -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Void what an earlier process held, and begin to refill lanes as they run empty."""
        await self._refill.start()

    async def drain(self, timeout_s: float) -> None:
        """Stop refilling, and let what is out come back."""
        await self._refill.stop()
        await self.lanes.drain(timeout_s)

    async def run_once(self) -> int:
        """See `Refill.run_once`."""
        return await self._refill.run_once()

    def _take_back(self, given_back: Sequence[Sending]) -> None:
        self._refill.take_back(given_back)


def _patience_s(schedule_s: tuple[float, ...]) -> float:
    """How long a delivery may wait behind an open breaker."""
    return max(sum(schedule_s), PATIENCE_S)
