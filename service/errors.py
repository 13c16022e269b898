"""Every error that Remora raises on purpose.

RemoraError
├── SettingsInvalid             the process does not start
├── CardInvalid                 the process does not start
├── AdapterFailed               the code of an adapter cannot be used; a job only notes it
├── EgressError                 an outbound request did not end with an answer
│   ├── EgressRefused           our own gate said no; nothing was sent
│   ├── EgressNotSent           connecting failed; provably nothing was sent
│   └── EgressCut               the request may have arrived, the answer did not
├── StorageUnavailable          our copies of results cannot be written or read now; tried again later
│   └── FileMissing             a copy is not where it should be
├── StoreUnavailable            503: the store cannot take the write now
│   └── StoreInDoubt            503: the store failed while it took the write
├── StoreFailed                 500 never: fatal for the process
├── GuardFailed                 internal: a guarded write met another state; the batch is replayed
└── Problem                     what an API caller is told; one class for each HTTP status
    ├── Malformed               400
    ├── Unauthenticated         401
    ├── BalanceTooSmall         402
    ├── Forbidden               403
    ├── NotFound                404 (also another account's objects)
    ├── Conflict                409
    ├── Gone                    410
    ├── TooLarge                413
    ├── UnsupportedMediaType    415
    ├── Invalid                 422, with JSON pointers
    ├── TooManyRequests         429
    └── Unavailable             503

Only `api/problems.py` turns these into HTTP answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self


class RemoraError(Exception):
    """The root: catching it catches everything that Remora raises on purpose."""


class SettingsInvalid(RemoraError):
    """One or more settings are wrong; `problems` has a line for each of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CardInvalid(RemoraError):
    """A provider card is wrong: the message gives file, line and reason."""


class AdapterFailed(RemoraError):
    """An adapter cannot be imported, raised, or gave something else than it should; the message never quotes a request.

    Args:
        logged: The log has it. One that is not may be of an adapter's own making, with any text.
    """

    def __init__(self, message: str, *, logged: bool = False) -> None:
        super().__init__(message)
        self.logged = logged


MAX_ERRORS: Final = 20  # fields at fault that are told of one request; nobody mends more at once


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the parts of an outbound request took; None for a part that did not happen or did not come to its end.

    The first three are those of the connection, so that a request on a kept one has none of them. It stands here since
    a request that fails on its way has parts too.
    """

    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None  # from the request's beginning to the answer's head


UNTIMED = Timing()  # nothing is known


class EgressError(RemoraError):
    """An outbound request did not end with an answer; `reason` is a short stable word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.timing = UNTIMED
        self.head = b""  # how the head of an answer that could not be read began


class EgressRefused(EgressError):
    """Our own gate refused the address or the URL; nothing was sent."""


class EgressNotSent(EgressError):
    """Name look-up, connecting or the TLS handshake failed; provably nothing was sent."""


class EgressCut(EgressError):
    """The request may have arrived, but no whole answer came back in time."""


class StorageUnavailable(RemoraError):
    """The place of our copies does not answer, is full, or refuses us; nothing was kept."""


class FileMissing(StorageUnavailable):
    """A file is not where it should be: removed by hand, or the place was emptied."""


class StoreUnavailable(RemoraError):
    """The store cannot take the write now (disk full, locked, shutting down); nothing was written."""


class StoreInDoubt(StoreUnavailable):
    """The store failed in the moment of the commit: nobody knows whether this was stored."""


class StoreFailed(RemoraError):
    """The store can no longer be trusted (I/O or fsync error): the process must end."""


class GuardFailed(RemoraError):
    """A guarded write met another state than the one it was decided on."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault: a JSON pointer into the request body, and what would be right."""

    pointer: str
    detail: str


class Problem(RemoraError):
    """An answer to an API caller, as RFC 9457 `application/problem+json`.

    Args:
        detail: What is wrong and what to do about it, for a person.
        code: The stable machine word; each class has a default.
        errors: The fields at fault, for 400 and 422.
        retry_after_s: Seconds after which trying again makes sense, sent as `Retry-After`.
        more: Further members of the answer, for programs.
    """

    status: ClassVar[int] = 400
    default_code: ClassVar[str] = "malformed"
    title: ClassVar[str] = "The request is malformed"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: int | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.more = dict(more or {})


class Malformed(Problem):
    """The bytes are not what they claim to be."""


class Unauthenticated(Problem):
    """No key, or not one that is valid."""

    status = 401
    default_code = "unauthenticated"
    title = "A valid key is needed"


class BalanceTooSmall(Problem):
    """The account cannot pay for the job."""

    status = 402
    default_code = "insufficient_balance"
    title = "The balance is too small"


class Forbidden(Problem):
    """The key is valid but lacks the scope."""

    status = 403
    default_code = "forbidden"
    title = "The key lacks the scope for this"


class NotFound(Problem):
    """There is no such object for this account."""

    status = 404
    default_code = "not_found"
    title = "Not found"


class Conflict(Problem):
    """The object is in a state in which this cannot be done."""

    status = 409
    default_code = "conflict"
    title = "Not possible in the present state"


class Gone(Problem):
    """It was there, and it is not kept any more."""

    status = 410
    default_code = "gone"
    title = "No longer kept"


class TooLarge(Problem):
    """The body is larger than this route takes."""

    status = 413
    default_code = "too_large"
    title = "The body is too large"


class UnsupportedMediaType(Problem):
    """The body is not JSON."""

    status = 415
    default_code = "unsupported_media_type"
    title = "The body must be application/json"


class Invalid(Problem):
    """The request is well-formed, but fields are wrong."""

    status = 422
    default_code = "invalid"
    title = "The request has invalid fields"

    @classmethod
    def of(cls, errors: Sequence[FieldError], *, code: str | None = None) -> Self:
        """Fields at fault, at least one; `detail` tells the first of them with its fix, too."""
        first = errors[0]
        more = f"; {len(errors) - 1} more in errors" if len(errors) > 1 else ""
        return cls(f"{first.pointer or 'the body'}: {first.detail}{more}", code=code, errors=tuple(errors))


class TooManyRequests(Problem):
    """Too many requests; `retry_after_s` tells when to come back."""

    status = 429
    default_code = "too_many_requests"
    title = "Too many requests"


class Unavailable(Problem):
    """The service cannot take this now; nothing was stored."""

    status = 503
    default_code = "unavailable"
    title = "Not available at the moment"
