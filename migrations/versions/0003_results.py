"""Our copies of results: where they lie, what they are, when they go; and large inputs apart from their jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.create_table(
        "inputs",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("storage_key", sa.String(), nullable=True),
        sa.Column("sweep_at", sa.Integer(), nullable=True),
        sa.CheckConstraint("(body IS NULL) <> (storage_key IS NULL)", name="ck_inputs_place"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index(
        "ix_inputs_for_sweep", "inputs", ["sweep_at"], unique=False, sqlite_where=sa.text("sweep_at IS NOT NULL")
    )
    op.add_column("jobs", sa.Column("erased_at", sa.Integer(), nullable=True))
    for name in ("width", "height", "link_dies_at", "due_at", "sweep_at", "lease_until"):
        op.add_column("results", sa.Column(name, sa.Integer(), nullable=True))
    for name in ("storage_key", "error", "lease_owner"):
        op.add_column("results", sa.Column(name, sa.String(), nullable=True))
    for name in ("tries", "dead_tries", "refreshed", "lease_epoch"):
        op.add_column("results", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_index(
        "ix_results_for_capture",
        "results",
        ["link_dies_at", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_results_for_sweep", "results", ["sweep_at"], unique=False, sqlite_where=sa.text("sweep_at IS NOT NULL")
    )
