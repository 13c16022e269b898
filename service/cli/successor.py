"""What is tried before a running service makes way for its successor: whatever would keep that from starting.

Nothing is changed but that a storage's directory is made. It must not know how a restart is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.cli.cards import read_providers
from service.clock import SystemClock, SystemRandomness
from service.db.inspection.examine import installation_at
from service.egress.door import Door
from service.environment import load
from service.errors import SettingsInvalid
from service.moderation.moderators import installed, moderators
from service.results.buckets import open_storage
from service.settings import Settings


def check_start(environ: Mapping[str, str], directory: Path, database: Path | None) -> None:
    """Read the settings as a successor would, and all that they name.

    Args:
        environ: Of the process.
        directory: Its working directory.
        database: The one that is served now: it has to be the successor's, whose log it may hold.

    Raises:
        SettingsInvalid: With what is wrong.
        CardInvalid: A card is.
    """
    settings = load(environ, directory)
    read_providers(settings)
    clock = SystemClock()
    moderators(settings, Door(allow=settings.egress_allow, clock=clock), clock, installed())
    if settings.sqlite_path != database:
        says = f"REMORA_DATABASE_URL: {database} is served now; stop the service to start it on {settings.sqlite_path}"
        raise SettingsInvalid([says])
    if database is not None:
        _check_store(settings, database)


def _check_store(settings: Settings, path: Path) -> None:
    key = settings.secret_key.get_secret_value() if settings.secret_key else None
    whose = installation_at(path, key, SystemRandomness())
    open_storage(settings.storage_url, path.with_name(path.name + ".spool"), whose)
