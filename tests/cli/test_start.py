"""What a start costs: what is not needed is not imported, and no table is read from end to end."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from service.db.migrate import migrations_directory, newest, upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.sqlite.sqlite_engine import LAST_POS
from service.db.sqlite.sqlite_tx import SQLiteTx
from service.deliveries import rescue_store
from service.jobs import queries
from service.results import capture_claim_store as capture_claims
from service.workers import job_claim_store
from service.workers.job_claim_store import VoidLeases
from tests.cli.commands import PATIENCE_S, environment

#: What takes long to import, and what it is for when somebody needs it.
NOT_AT_START = {
    "alembic": "a migration is due",
    "sqlalchemy": "as alembic",
    "sqlmodel": "as alembic",
    "PIL": "a picture is drawn or looked at",
    "rich": "tables on a terminal",
    "textual": "screens on a terminal",
    "pydantic.v1": "nothing of ours",
    "service.sandbox": "the demo",
}
SERVE = """
import asyncio, os, sys
{planted}
from pathlib import Path
from service.cli import main
main.load("serve")
from service.app import Service
from service.environment import load

async def serve():
    service = await Service.open(load(os.environ, Path.cwd()))
    await service.listen()
    print(*sys.modules)
    await service.close()

asyncio.run(serve())
"""


def _imported(directory: Path, planted: str = "") -> set[str]:
    """Those of the modules that a serving process has."""
    ran = subprocess.run(
        [sys.executable, "-c", SERVE.format(planted=planted)],
        cwd=directory,
        env=environment(REMORA_PORT="0", REMORA_LOG_LEVEL="warning"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return NOT_AT_START.keys() & set(ran.stdout.split())


def test_start_imports_only_what_serving_needs(tmp_path: Path) -> None:
    """With a database that is up to date; a planted import is seen."""
    upgrade(tmp_path / "remora.db")
    found, planted = _imported(tmp_path), _imported(tmp_path, "import alembic")

    assert found == set()
    assert "alembic" in planted


def test_new_database_is_migrated_all_the_same(tmp_path: Path) -> None:
    """What is imported when a migration is due is there."""
    assert "alembic" in _imported(tmp_path)


def test_newest_revision_is_what_alembic_says() -> None:
    """It is read from the names of the files, which must not differ from what stands in them."""
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")

    assert newest() == ScriptDirectory.from_config(config).get_current_head()


class Watched(InlineReader):
    """A connection that remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.connection = InlineConnection(path)
        self.asked: list[str] = []
        super().__init__(self.connection)
        self.connection.raw.set_trace_callback(self.asked.append)

    def whole_tables(self) -> list[str]:
        """Questions that read a large table without an index of its own; of the newest jobs a bounded number is read."""
        self.connection.raw.set_trace_callback(None)
        found = []
        for sql in self.asked:
            if sql.startswith(("SELECT", "UPDATE", "WITH", "\nSELECT", "\nUPDATE", "INSERT", "DELETE")):
                plan = [row[3] for row in self.connection.raw.execute(f"EXPLAIN QUERY PLAN {sql}")]
                found += [step for step in plan if _is_whole(step)]
        return found


def _is_whole(step: str) -> bool:
    return re.fullmatch(r"(SCAN|SEARCH) (jobs|events|deliveries|results|submissions|callbacks)", step) is not None


@pytest.mark.parametrize("planted", ["", "SELECT max(pos) FROM events", "SELECT 1 FROM jobs WHERE lease_owner = 'x'"])
def test_start_reads_no_table_from_end_to_end(tmp_path: Path, planted: str) -> None:
    """A start takes as long with a million jobs as with none; a planted question is seen."""
    path = tmp_path / "remora.db"
    upgrade(path)
    watched = Watched(path)
    tx = SQLiteTx(watched.connection, 0)

    async def start() -> None:
        await job_claim_store.handle_void(tx, [VoidLeases()])
        await rescue_store.handle_void(tx, [rescue_store.VoidDeliveryLeases()])
        await tx.commit()
        await watched.rows(capture_claims._VOID)
        await queries.recently_finished(watched, 10)
        await queries.at_providers(watched)
        await queries.active_providers(watched)
        await watched.rows(LAST_POS)
        if planted:
            await watched.rows(planted)

    asyncio.run(start())
    found = watched.whole_tables()

    assert len(watched.asked) > 8
    assert len(found) == bool(planted)
