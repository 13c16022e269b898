"""Claims for one provider at a time, with the accounts in turn, and refusals that share their rows on the timeline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TO_SUBMIT = sa.text("status = 'queued'")
_TO_POLL = sa.text("due_at IS NOT NULL AND status NOT IN ('queued', 'submitting')")


def upgrade() -> None:
    """Bring the schema forward; an index that is replaced holds nothing of its own."""
    op.add_column("jobs", sa.Column("refusals", sa.Text(), nullable=True))
    op.drop_index("ix_jobs_for_submit", table_name="jobs")
    op.drop_index("ix_jobs_for_poll", table_name="jobs")
    op.create_index("ix_jobs_for_submit", "jobs", ["provider", "due_at"], sqlite_where=_TO_SUBMIT)
    op.create_index("ix_jobs_for_submit_in_turn", "jobs", ["provider", "account_id", "due_at"], sqlite_where=_TO_SUBMIT)
    op.create_index("ix_jobs_for_poll", "jobs", ["provider", "due_at"], sqlite_where=_TO_POLL)
    op.create_index("ix_jobs_for_poll_in_turn", "jobs", ["provider", "account_id", "due_at"], sqlite_where=_TO_POLL)
    op.create_index("ix_jobs_for_abandoned", "jobs", ["due_at"], sqlite_where=sa.text("status = 'submitting'"))
