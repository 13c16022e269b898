"""Truth values are declared as such; having a number and being in the feed are two things."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DatabaseError

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_FLAGS = (("subscriptions", "stop_at_expiry"), ("results", "refreshed"))
_TIED = "CONSTRAINT ck_events_body CHECK ((pos IS NULL) = (body IS NULL))"
_BODY, _LEFT = "pos IS NULL OR body IS NOT NULL", "left_pos IS NULL OR body IS NULL"
_FREE = f"CONSTRAINT ck_events_body CHECK ({_BODY}), CONSTRAINT ck_events_left CHECK ({_LEFT})"
# As before, and for what goes before it had a number: whatever takes an event away before it was counted has its job counted.
_KEEP_UNCOUNTED = """
CREATE TRIGGER events_usage_uncounted AFTER UPDATE OF body ON events
WHEN NEW.body IS NULL AND OLD.body IS NOT NULL AND NEW.job_id IS NOT NULL
    AND (OLD.pos IS NULL OR OLD.pos > (SELECT pos FROM usage_progress))
BEGIN
    INSERT INTO usage_recounts (account_id, job_id) VALUES (NEW.account_id, NEW.job_id);
END
"""


def upgrade() -> None:
    """Bring the schema forward."""
    for table, column in _FLAGS:
        if not _reworded(table, f"{column} INTEGER DEFAULT 0", f"{column} BOOLEAN DEFAULT 0"):
            with op.batch_alter_table(table) as batch:
                batch.alter_column(column, type_=sa.Boolean(), existing_server_default=sa.false())
    op.execute("DROP TRIGGER events_usage_uncounted")
    # What retention removed before has lost its number.
    op.execute("ALTER TABLE events RENAME COLUMN erased_pos TO left_pos")
    if not _reworded("events", _TIED, _FREE):
        with op.batch_alter_table("events") as batch:
            batch.drop_constraint("ck_events_body", type_="check")
            batch.create_check_constraint("ck_events_body", _BODY)
            batch.create_check_constraint("ck_events_left", _LEFT)
    op.execute(_KEEP_UNCOUNTED)


def _reworded(table: str, old: str, new: str) -> bool:
    """Change what SQLite keeps as a table's text; False where it does not allow that.

    Only for what is no different on the disk, see https://sqlite.org/lang_altertable.html#otheralter: the other way writes the
    table anew, and a table of events may have many gigabytes. Some systems' SQLite keeps its schema from being written.
    """
    connection = op.get_bind()
    [version] = connection.exec_driver_sql("PRAGMA schema_version").one()
    try:
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        changed = connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ? AND instr(sql, ?)",
            (old, new, table, old),
        )
        connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")  # so that the text is read anew
    except DatabaseError:
        return False
    finally:
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    return changed.rowcount == 1
