"""What PostgreSQL's errors mean: not able now, met somebody else's change, broken, or the statement's own fault.

It must not know what was tried.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from service.errors import GuardFailed, StoreFailed, StoreUnavailable

#: The server is not there, not yet or not any more, or has no room; or it is a standby (25006), as after a failover.
_UNABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,  # the connection is closed
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InternalClientError,
)
#: Everything that asking a server may raise.
DRIVER: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection was ended between two requests, and is not known to be closed yet
)
#: Another process changed the same rows, or wrote the same key first: what was decided must be decided again.
_MET: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.UniqueViolationError)
_BROKEN: Final = (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that another one may serve."""
    lost = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)
    return isinstance(error, (*lost, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError))


def fault(error: BaseException) -> BaseException:
    """The error in our words; one that belongs to the statement is given back as it is."""
    if isinstance(error, _MET):
        return GuardFailed(f"another process was first: {error}")
    if isinstance(error, _BROKEN):
        return StoreFailed(f"{type(error).__name__}: {error}")
    if isinstance(error, _UNABLE) and not isinstance(error, asyncpg.ClientConfigurationError):
        return StoreUnavailable(f"the database cannot be used now: {str(error) or type(error).__name__}")
    return error
