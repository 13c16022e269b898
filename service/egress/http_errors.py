"""What went wrong on the way out, in our own words.

The one question that matters: can the request have left? Messages name the host and nothing else of the URL, which may
hold a token, and never the address, which may be one of the inside.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping

import aiohttp
import httpx

from service.egress.connections import Progress
from service.egress.http_answers import BadAnswer, OutOfBounds
from service.errors import EgressCut, EgressError, EgressNotSent, EgressRefused

#: All that the two clients raise when a request goes wrong: their own trees, plain deadlines and sockets, ValueError for
#: headers that cannot be written, and RuntimeError for a session that was closed meanwhile.
FAULTS = (aiohttp.ClientError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError)

_NOT_SENT = {
    "connect_refused": "{host} refused the connection",
    "connect_timeout": "{host} did not take the connection in time",
    "connect_failed": "{host} could not be connected",
    "tls_failed": "the TLS handshake with {host} failed: its protocol was not accepted",
    "tls_untrusted": "the certificate of {host} is not signed by an authority that is trusted, or lacks one in between",
    "tls_expired": "the certificate of {host} has expired",
    "tls_not_yet_valid": "the certificate of {host} is not valid yet",
    "tls_wrong_name": "the certificate of {host} is made out to another name",
}
_CUT = {
    "timeout": "{host} gave no whole answer in time",
    "connection_cut": "{host} cut the connection before its answer was whole",
    "bad_answer": "{host} answered with {what}",
}
#: What OpenSSL says of a certificate (X509_V_ERR_…, x509_vfy.h); whatever else it says means that it is not trusted.
_CERTIFICATE = {9: "tls_not_yet_valid", 10: "tls_expired", 62: "tls_wrong_name", 64: "tls_wrong_name"}


def fault(error: Exception, host: str, headers: Mapping[str, str], progress: Progress) -> EgressError:
    """Say in our words what `error` means for a request.

    Args:
        error: One of `FAULTS`.
        host: To whom.
        headers: What was to be sent.
        progress: How far the request came.
    """
    made = _fault(error, host, headers, left=progress.left)
    made.timing = progress.timing()
    return made


def _fault(error: Exception, host: str, headers: Mapping[str, str], *, left: bool) -> EgressError:
    # httpx-aiohttp 0.2.0 reports every failure to connect as ConnectTimeout; what happened is in the cause.
    if isinstance(error, httpx.HTTPError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, ValueError) and not all(map(_is_sound, headers.items())):
        # Both clients refuse such headers before they write the first byte.
        return EgressRefused("headers_invalid", "a header cannot be sent: use letters, digits and spaces in one line")
    if left:
        reason = _cut(error)
        return EgressCut(reason, _CUT[reason].format(host=host, what=_what(error)))
    if isinstance(error, httpx.InvalidURL | aiohttp.InvalidURL):
        return EgressRefused("url_invalid", "the URL cannot be sent: write it as https://host/path")
    reason = _not_sent(error)
    return EgressNotSent(reason, _NOT_SENT[reason].format(host=host))


def _is_sound(header: tuple[str, str]) -> bool:
    name, value = header
    return bool(name) and name.isascii() and value.isascii() and (name + value).isprintable()


def _not_sent(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch | ssl.SSLError):
        return _tls(error)
    number = error.errno if isinstance(error, OSError) else None
    return {errno.ECONNREFUSED: "connect_refused", errno.ETIMEDOUT: "connect_timeout"}.get(
        number or 0, "connect_failed"
    )


def _tls(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE.get(error.verify_code, "tls_untrusted")
    return "tls_failed"


def _cut(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return "bad_answer" if isinstance(error, aiohttp.ClientResponseError | BadAnswer) else "connection_cut"


def _what(error: Exception) -> str:
    """What was answered instead of HTTP that we read."""
    if isinstance(error, BadAnswer):
        return str(error) or "a body that is not HTTP"
    return error.__cause__.message if isinstance(error.__cause__, OutOfBounds) else "something that is not HTTP"
