"""How operators write values: durations, sizes, URLs, address ranges.

Owns the text forms only. Every function is pure and raises ValueError with what would be right; it must not know which
setting it reads.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

MAX_DURATION: Final = timedelta(days=3650)  # far beyond any sense, and far below what dates can hold
UNITS_S: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}  # bytes
_MAX_NAME: Final = 240  # bytes of a file's name; most file systems take 255, and `.secret-key` is put behind it
_SHOWN_CHARS: Final = 80  # of a wrong value in a message
_MAX_SIZE: Final = 2**50  # bytes, a pebibyte
_MICRO: Final = 1_000_000  # micro-USD in a dollar
_MAX_USD: Final = 1_000_000  # of one job


@dataclass(frozen=True, slots=True)
class SubmitRate:
    """At most `count` submissions in any `per_s` seconds."""

    count: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Retention:
    """How long jobs, the payloads of jobs (inputs, callbacks) and delivery attempts are kept."""

    jobs: timedelta
    payloads: timedelta
    attempts: timedelta


def database_url(text: str) -> str:
    """`sqlite:///path` or `postgresql://…`, without a driver's name; the message never repeats the text."""
    form = "write sqlite:///remora.db, sqlite:////data/remora.db or postgresql://user:password@host/name"
    scheme, _, rest = text.partition("://")
    engine = scheme.lower().partition("+")[0]
    if engine in {"postgres", "postgresql"} and rest:
        try:
            urlsplit(text).port  # noqa: B018 - looking is what judges it
        except ValueError:
            raise ValueError(form) from None  # the first message may quote the password
        return f"postgresql://{rest}"
    if engine != "sqlite":
        raise ValueError(form)
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or path.startswith(":") or set(path) & set("?#"):
        raise ValueError("write sqlite:/// and the path of a file, without options: jobs in memory would be lost")
    name = path.rpartition("/")[2]
    if name in {"", ".", ".."}:
        raise ValueError("write the path of a file, not of a directory")
    if len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME:
        raise ValueError(f"write a shorter name, of at most {_MAX_NAME} bytes: files beside it have longer ones")
    return f"sqlite:///{path}"


def without_password(url: str) -> str:
    """The URL of a database as it may be shown and logged: without password and options."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"


def host(text: str) -> str:
    """An address or a name to listen on; brackets around IPv6 are taken off."""
    bare = text.removeprefix("[").removesuffix("]")
    if re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%\w+)?", bare) is None:
        raise ValueError("write an address to listen on, such as 127.0.0.1, 0.0.0.0 or ::")
    return bare


def whole(text: str, *, low: int, high: int) -> int:
    """A whole number within bounds."""
    if re.fullmatch(r"[0-9]{1,18}", text) is None or not low <= int(text) <= high:
        hint = "; Kubernetes sets it for a service of this name: set enableServiceLinks to false" * ("://" in text)
        raise ValueError(f"write a whole number from {low} to {high}{hint}")
    return int(text)


def http_url(text: str, *, path: bool) -> str:
    """An origin, with a path in front of ours if `path`; without user, query and the slash at the end."""
    form = "write http(s)://host[:port]" + ("[/prefix], without query" if path else " only: the paths are the card's")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # a port that is no number, a bracket that is not closed
        raise ValueError(form) from error
    clean = re.fullmatch(r"[\x21-\x7e]+", text) is not None and not set(text) & set('?#\\<>"')
    if not usable or not clean or "@" in parts.netloc or (parts.path.strip("/") and not path):
        raise ValueError(form)
    return text.rstrip("/")


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Address ranges with commas between; a lone address is a range of one."""
    return tuple(_network(part.strip()) for part in text.split(",") if part.strip())


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        loose = ip_network(text, strict=False)
    except ValueError as error:
        meant = "; for this machine write 127.0.0.0/8" if text.lower() == "localhost" else ""
        raise ValueError(f"{text!r} is no address range; write them as 10.0.0.0/8, fd00::/8{meant}") from error
    if loose.network_address != ip_address(text.partition("/")[0]):
        raise ValueError(f"{text!r} has bits set behind its prefix; did you mean {loose}?")
    return loose


def storage_url(text: str) -> str | None:
    """Where files are copied to; None for `none`."""
    if text == "none":
        return None
    form = "write file:/path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or none"
    if re.search(r"[\x00-\x1f\x7f?#]", text) is not None:  # they would be dropped, and another place be meant
        raise ValueError(f"{form}, without ?, # and control characters")
    parts = urlsplit(text)
    if parts.scheme in {"s3", "gs", "az"} and parts.netloc and "@" not in parts.netloc:
        return text.rstrip("/")
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return f"file:{parts.path}"
    raise ValueError(form)


def duration(text: str, *, low: timedelta = timedelta(milliseconds=1)) -> timedelta:
    """`500ms`, `30s`, `5m`, `2h`, `7d`."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)", text)
    seconds = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if not low.total_seconds() <= seconds <= MAX_DURATION.total_seconds():
        least = f"{low / timedelta(seconds=1):g}s"
        raise ValueError(f"write a duration such as 500ms, 30s, 5m, 2h, 7d, from {least} to {MAX_DURATION.days}d")
    return timedelta(seconds=seconds)


def rate(text: str) -> SubmitRate:
    """Submissions per time, as `5/s`, `20/10s` or `100/m`."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{0,9})(s|m|h)", text)
    if match is None or not int(match[1]) or not int(match[2] or 1):
        raise ValueError("write submissions per time, such as 5/s, 20/10s or 100/m")
    return SubmitRate(int(match[1]), float(match[2] or 1) * UNITS_S[match[3]])


def schedule(text: str) -> tuple[timedelta, ...]:
    """Waits with commas between."""
    return tuple(duration(part.strip()) for part in text.split(","))


RETENTION_DEFAULT: Final = "jobs=365d, payloads=90d, attempts=30d"


def retention(text: str) -> Retention:
    """Some of the three times; the others are as in the default."""
    kept: dict[str, timedelta] = {}
    for part in filter(str.strip, f"{RETENTION_DEFAULT},{text}".split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in {"jobs", "payloads", "attempts"}:
            raise ValueError(f"{part.strip()!r} is not understood; write {RETENTION_DEFAULT}, or some of these")
        kept[name.strip()] = duration(value.strip(), low=timedelta(seconds=1))
    return Retention(**kept)


def size(text: str) -> int:
    """Bytes: a number, with a unit or without."""
    match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text)
    size_bytes = int(match[1]) * _SIZES.get(match[2].upper() or "B", 0) if match else 0
    if not 1 <= size_bytes <= _MAX_SIZE:
        raise ValueError("write a size such as 512MiB, 2GiB, 500KB or a number of bytes")
    return size_bytes


def usd(text: str) -> int:
    """An amount of US dollars above zero, in micro-USD."""
    match = re.fullmatch(r"([0-9]{1,7})(?:\.([0-9]{1,6}))?", text)
    micro_usd = int(match[1]) * _MICRO + int((match[2] or "").ljust(6, "0")) if match else 0
    if not 0 < micro_usd <= _MAX_USD * _MICRO:
        raise ValueError(f"write US dollars such as 0.50, at most {_MAX_USD}, with at most six decimal places")
    return micro_usd


def secret(text: str, *, at_least: int = 1) -> SecretStr:
    """A secret that fits into a header."""
    if re.fullmatch(r"[\x21-\x7e]+", text) is None:
        raise ValueError("write printable ASCII characters without blanks: it travels in a header")
    if len(text) < at_least:
        raise ValueError(f"write at least {at_least} characters, for example the output of: openssl rand -base64 32")
    return SecretStr(text)


def secrets(text: str) -> tuple[SecretStr, ...]:
    """Several secrets with commas between; none where the text is empty."""
    return tuple(secret(part.strip()) for part in text.split(",") if part.strip())


def one_of(*words: str) -> Callable[[str], str]:
    """A reader for one of these words, in small letters."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}{did_you_mean(text.lower(), words)}")
        return text.lower()

    return read


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where one of the known words is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def shown(text: str) -> str:
    """A wrong value as a message may show it: quoted, short, without a password in a URL."""
    masked = re.sub(r"//[^/@\s]*@", "//…@", text)
    return repr(masked if len(masked) <= _SHOWN_CHARS else masked[:_SHOWN_CHARS] + "…")
