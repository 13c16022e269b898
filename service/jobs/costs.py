"""What a job does to its account's balance: held for when it is taken, charged or let go when that is decided.

Owns how a draft becomes transfers; pure. Which states cost what is decided elsewhere (`transitions.observed`): here `cost_charged` is
followed, wherever it came from, so that the books cannot say anything else than the job.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.jobs.row import MUTABLE
from service.jobs.transitions.draft import Draft
from service.ledger.transfers import Transfer, TransferKind, settlement
from service.states import FINAL

_CHARGED = MUTABLE.index("cost_charged")


def hold(drafts: Iterable[Draft]) -> list[Transfer]:
    """For new jobs: what each is expected to cost is held, or its ceiling. One without, or with nothing to pay, has no books."""
    return [_transfer(draft, TransferKind.HOLD, draft.job.cost_held) for draft in drafts if draft.job.cost_held]


def settle(drafts: Iterable[Draft]) -> list[Transfer]:
    """For decided jobs: a cost that was found is charged, and what is held beyond it, or for nothing, is let go.

    A job that goes on keeps what is held for it: in `submit_unknown`, in the queue again, for a further submission.
    """
    transfers: list[Transfer] = []
    for draft in drafts:
        job = draft.job
        was_charged = draft.before[_CHARGED]
        if not job.cost_held and job.cost_charged == was_charged:
            continue
        found = job.cost_charged if job.cost_charged != was_charged else None
        moves = settlement(job.cost_held or 0, found, is_over=job.is_final, was_over=draft.was in FINAL)
        if moves or found is not None:
            job.cost_held = None
        transfers += [_transfer(draft, kind, amount) for kind, amount in moves]
    return transfers


def _transfer(draft: Draft, kind: TransferKind, amount: int) -> Transfer:
    job = draft.job
    return Transfer(job.account_id, kind, amount, job_id=job.id, seq=job.seq, basis=job.cost_basis)
