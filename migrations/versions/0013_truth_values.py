"""Truth values are declared as such."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DatabaseError

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_FLAGS = (("subscriptions", "stop_at_expiry"), ("results", "refreshed"))


def upgrade() -> None:
    """Bring the schema forward."""
    for table, column in _FLAGS:
        if not _reworded(table, f"{column} INTEGER DEFAULT 0", f"{column} BOOLEAN DEFAULT 0"):
            with op.batch_alter_table(table) as batch:
                batch.alter_column(column, type_=sa.Boolean(), existing_server_default=sa.false())


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
