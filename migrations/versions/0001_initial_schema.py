"""Initial schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema forward; migrations only add."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("limit_kind", sa.String(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("secret_prefix", sa.String(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_secret_until", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("pos", sa.Integer(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("(pos IS NULL) = (body IS NULL)", name="ck_events_body"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index("ix_events_for_feed", ["pos"], unique=True, sqlite_where=sa.text("pos IS NOT NULL"))
        batch_op.create_index("ix_events_for_timeline", ["job_id", "seq"], unique=True)

    op.create_table(
        "idempotency",
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "key"),
    )
    with op.batch_alter_table("idempotency", schema=None) as batch_op:
        batch_op.create_index("ix_idempotency_for_cleaning", ["expires_at"], unique=False)

    op.create_table(
        "lanes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("next_due_at", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("lanes", schema=None) as batch_op:
        batch_op.create_index(
            "ix_lanes_for_claim", ["next_due_at"], unique=False, sqlite_where=sa.text("next_due_at IS NOT NULL")
        )

    op.create_table(
        "meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("subscription_id", sa.String(), nullable=True),
        sa.Column("lane", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("schedule_base", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Integer(), nullable=True),
        sa.Column("due_at", sa.Integer(), nullable=True),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Integer(), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="ck_deliveries_wake_up"),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'dead', 'skipped')", name="ck_deliveries_status"),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["events.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_deliveries_for_claim", ["lane", "due_at"], unique=False, sqlite_where=sa.text("status = 'pending'")
        )
        batch_op.create_index("ix_deliveries_for_job", ["job_id"], unique=False)
        batch_op.create_index("ix_deliveries_for_list", ["account_id", "id"], unique=False)
        batch_op.create_index(
            "ix_deliveries_for_rescue", ["lease_until"], unique=False, sqlite_where=sa.text("lease_until IS NOT NULL")
        )
        batch_op.create_index(
            "ix_deliveries_for_subscription",
            ["subscription_id", "id"],
            unique=False,
            sqlite_where=sa.text("subscription_id IS NOT NULL"),
        )

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("input_full", sa.Text(), nullable=True),
        sa.Column("job_metadata", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("callback_url", sa.String(), nullable=True),
        sa.Column("callback_events", sa.String(), nullable=True),
        sa.Column("retry_of", sa.String(), nullable=True),
        sa.Column("submission_id", sa.String(), nullable=True),
        sa.Column("submit_tries", sa.Integer(), nullable=False),
        sa.Column("submit_failures", sa.Integer(), nullable=False),
        sa.Column("provider_task_id", sa.String(), nullable=True),
        sa.Column("task_confirmed", sa.Boolean(), nullable=False),
        sa.Column("provider_status", sa.String(), nullable=True),
        sa.Column("poll_url", sa.String(), nullable=True),
        sa.Column("cancel_url", sa.String(), nullable=True),
        sa.Column("resolved_by", sa.String(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("cost_estimated", sa.Integer(), nullable=True),
        sa.Column("cost_charged", sa.Integer(), nullable=True),
        sa.Column("cost_basis", sa.String(), nullable=False),
        sa.Column("cost_raw", sa.String(), nullable=True),
        sa.Column("result_count", sa.Integer(), nullable=False),
        sa.Column("polls", sa.Integer(), nullable=False),
        sa.Column("callbacks", sa.Integer(), nullable=False),
        sa.Column("hint_at", sa.Integer(), nullable=True),
        sa.Column("hint_tries", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Text(), nullable=True),
        sa.Column("running_at", sa.Integer(), nullable=True),
        sa.Column("missing_since", sa.Integer(), nullable=True),
        sa.Column("poll_failures", sa.Integer(), nullable=False),
        sa.Column("not_found_polls", sa.Integer(), nullable=False),
        sa.Column("overdue", sa.Boolean(), nullable=False),
        sa.Column("overdue_at", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("submitted_at", sa.Integer(), nullable=True),
        sa.Column("finished_at", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Integer(), nullable=True),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Integer(), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(status IN ('queued', 'submitting', 'submit_unknown', 'running')) = (finished_at IS NULL)",
            name="ck_jobs_finished",
        ),
        sa.CheckConstraint("status <> 'completed' OR result_count > 0", name="ck_jobs_completed_has_result"),
        sa.CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="ck_jobs_failed_has_code"),
        sa.CheckConstraint(
            "status IN ('queued', 'submitting', 'submit_unknown', 'running', 'completed', 'failed', 'cancelled', 'expired')",
            name="ck_jobs_status",
        ),
        sa.CheckConstraint(
            "status NOT IN ('queued', 'submitting', 'submit_unknown', 'running') OR due_at IS NOT NULL",
            name="ck_jobs_wake_up",
        ),
        sa.CheckConstraint("cost_charged IS NULL OR cost_charged >= 0", name="ck_jobs_charge"),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_jobs_for_expiry",
            ["expires_at"],
            unique=False,
            sqlite_where=sa.text("status IN ('queued', 'submitting', 'submit_unknown', 'running')"),
        )
        batch_op.create_index("ix_jobs_for_list", ["account_id", "id"], unique=False)
        batch_op.create_index("ix_jobs_for_list_by_status", ["account_id", "status", "id"], unique=False)
        batch_op.create_index(
            "ix_jobs_for_overdue", ["overdue_at"], unique=False, sqlite_where=sa.text("overdue_at IS NOT NULL")
        )
        batch_op.create_index(
            "ix_jobs_for_poll",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("due_at IS NOT NULL AND status <> 'queued'"),
        )
        batch_op.create_index(
            "ix_jobs_for_submit",
            ["provider", "account_id", "due_at"],
            unique=False,
            sqlite_where=sa.text("status = 'queued'"),
        )
        batch_op.create_index(
            "ix_jobs_for_task", ["provider_task_id"], unique=False, sqlite_where=sa.text("provider_task_id IS NOT NULL")
        )

    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("last_used_at", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.Integer(), nullable=True),
        sa.Column("revoked_at", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    with op.batch_alter_table("keys", schema=None) as batch_op:
        batch_op.create_index("ix_keys_for_list", ["account_id", "id"], unique=False)

    op.create_table(
        "subscriptions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("providers", sa.Text(), nullable=False),
        sa.Column("operations", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=True),
        sa.Column("rate_per_s", sa.Float(), nullable=True),
        sa.Column("max_in_flight", sa.Integer(), nullable=False),
        sa.Column("schedule", sa.String(), nullable=True),
        sa.Column("signatures", sa.Text(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_secret_until", sa.Integer(), nullable=True),
        sa.Column("last_success_at", sa.Integer(), nullable=True),
        sa.Column("failing_since", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("subscriptions", schema=None) as batch_op:
        batch_op.create_index("ix_subscriptions_for_list", ["account_id", "id"], unique=False)

    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("response_body", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.create_index("ix_attempts_for_delivery", ["delivery_id", "id"], unique=False)

    op.create_table(
        "results",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=False),
        sa.Column("content_type", sa.String(), nullable=True),
        sa.Column("size_bytes", sa.Integer(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("stored", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "idx"),
    )
    op.create_table(
        "submissions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("provider_task_id", sa.String(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("answered_at", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash", name="uq_submissions_token"),
    )
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.create_index("ix_submissions_for_job", ["job_id"], unique=False)
        batch_op.create_index(
            "ix_submissions_for_task",
            ["provider", "provider_task_id"],
            unique=False,
            sqlite_where=sa.text("provider_task_id IS NOT NULL"),
        )

    op.create_table(
        "callbacks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.String(), nullable=False),
        sa.Column("received_at", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(), nullable=True),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submissions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("submission_id", "body_hash", name="uq_callbacks_body"),
    )
