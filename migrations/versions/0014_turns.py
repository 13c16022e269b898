"""Sweeps of jobs in an order without ties, abandoned submits by provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_ACTIVE = sa.text("status IN ('queued', 'submitting', 'submit_unknown', 'running')")


def upgrade() -> None:
    """Bring the schema forward; an index that is replaced holds nothing of its own."""
    for name in ("abandoned", "expiry", "overdue"):
        op.drop_index(f"ix_jobs_for_{name}", table_name="jobs")
    op.create_index(
        "ix_jobs_for_abandoned", "jobs", ["provider", "due_at", "id"], sqlite_where=sa.text("status = 'submitting'")
    )
    op.create_index("ix_jobs_for_expiry", "jobs", ["expires_at", "id"], sqlite_where=_ACTIVE)
    op.create_index("ix_jobs_for_overdue", "jobs", ["overdue_at", "id"], sqlite_where=sa.text("overdue_at IS NOT NULL"))
