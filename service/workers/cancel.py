"""Cancelling: what is still queued is taken back here, what the provider holds only with the provider's word."""

from __future__ import annotations

from dataclasses import dataclass

from service.db.writer import Writer
from service.errors import Conflict, Unavailable
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.jobs.transitions.facts import CancelAnswered, CancelAsked
from service.providers.client import CancelVerdict
from service.providers.registry import Registry
from service.states import JobStatus

RETRY_AFTER_S = 5  # seconds, where the provider could not be asked


@dataclass(slots=True)
class Canceller:
    """The use case behind `POST /v1/jobs/{id}/cancel`."""

    writer: Writer
    registry: Registry

    async def cancel(self, job: JobRow, *, force: bool) -> None:
        """Cancel a job of the caller's account; returns when it is cancelled.

        Raises:
            Conflict: `not_cancellable`: it is too late, or nobody can.
            Unavailable: The provider could not be asked now.
        """
        provider = self.registry.get(job.provider)
        asks = job.status is JobStatus.RUNNING and provider is not None and provider.configured
        if not asks or provider is None or job.provider_task_id is None or not provider.can_cancel(job.operation):
            await self.writer.run(Track(CancelAsked(job.id, job.account_id, force)))
            return
        outcome = await provider.cancel(job.operation, job.provider_task_id, job.cancel_url)
        cancelled = outcome.verdict is CancelVerdict.CANCELLED
        if outcome.verdict is CancelVerdict.RETRY:
            msg = f"{provider.name} could not be asked to cancel: {outcome.message}"
            raise Unavailable(msg, code="provider_unavailable", retry_after_s=RETRY_AFTER_S)
        news = await self.writer.run(Track(CancelAnswered(job.id, job.account_id, cancelled, outcome.message)))
        if not cancelled and news is not False:  # False: another request has cancelled it meanwhile
            msg = f"{provider.name} does not cancel it: {outcome.message}"
            raise Conflict(msg, code="not_cancellable")
