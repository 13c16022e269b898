"""Copies of results in lanes, so that one account's delay no other's; sweeps of jobs in an order without ties."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_ACTIVE = sa.text("status IN ('queued', 'submitting', 'submit_unknown', 'running')")
# What `host_of` makes of a URL, for those that wait now.
_START = "substr(source_url, 1, 300)"
_REST = f"substr({_START}, instr({_START}, '://') + 3)"
_END = ", ".join(f"instr({_REST} || '{char}', '{char}')" for char in "/?#")
_HOST = f"CASE WHEN instr({_START}, '://') = 0 THEN '' ELSE lower(substr({_REST}, 1, min({_END}) - 1)) END"
_LANES = f"""
UPDATE results SET lane = (SELECT account_id FROM jobs WHERE jobs.id = results.job_id) || ' ' || {_HOST}
WHERE due_at IS NOT NULL
"""


def upgrade() -> None:
    """Bring the schema forward; an index that is replaced holds nothing of its own."""
    op.add_column("results", sa.Column("lane", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.execute(_LANES)
    op.drop_index("ix_results_for_capture", table_name="results")
    op.create_index(
        "ix_results_for_capture",
        "results",
        ["lane", "link_dies_at", "due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    for name in ("abandoned", "expiry", "overdue"):
        op.drop_index(f"ix_jobs_for_{name}", table_name="jobs")
    op.create_index(
        "ix_jobs_for_abandoned", "jobs", ["provider", "due_at", "id"], sqlite_where=sa.text("status = 'submitting'")
    )
    op.create_index("ix_jobs_for_expiry", "jobs", ["expires_at", "id"], sqlite_where=_ACTIVE)
    op.create_index("ix_jobs_for_overdue", "jobs", ["overdue_at", "id"], sqlite_where=sa.text("overdue_at IS NOT NULL"))
