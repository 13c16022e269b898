"""The commands' way to a running service: its HTTP API, asked like any caller asks it.

Owns which key is used, requests, answers and what is said when the service refuses. It must not know what the answers are for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from service.accounts.bootstrap import key_file
from service.cli.outcome import CONFIGURED_WRONG, NOT_AVAILABLE, NOT_WELL, Refused
from service.clock import SystemClock
from service.egress import Answer, Call, Egress
from service.egress.door import Door
from service.settings import Settings

TIMEOUT_S: Final = 30.0
_MAX_ANSWER_BYTES: Final = 16 << 20
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ANYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class ServiceClient:
    """Speaks to one service with one key.

    Args:
        egress: The way out.
        url: Where the service is, without a slash at the end.
        key: The key to use.
    """

    def __init__(self, egress: Egress, url: str, key: str) -> None:
        self._egress = egress
        self._url = url
        self._key = key

    async def get(self, path: str) -> Any:
        """What the service answers to a GET.

        Raises:
            Refused: It answered with a problem; the message names it.
            EgressError: It could not be asked.
        """
        return await self._ask("GET", path, None, {})

    async def post(self, path: str, body: object | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """What the service answers to a POST; raises as `get`."""
        return await self._ask("POST", path, body, headers or {})

    async def patch(self, path: str, body: object) -> Any:
        """What the service answers to a PATCH; raises as `get`."""
        return await self._ask("PATCH", path, body, {})

    async def read(self, path: str) -> bytes:
        """What the service answers to a GET, as it is; raises as `get`."""
        return (await self._answer("GET", path, None, {})).body

    async def _ask(self, method: str, path: str, body: object | None, headers: Mapping[str, str]) -> Any:
        answer = await self._answer(method, path, body, headers)
        try:
            return msgspec.json.decode(answer.body) if answer.body else None
        except msgspec.DecodeError as error:
            says = f"{method} {path} was answered with something that is no JSON; does REMORA_URL lead to Remora?"
            raise Refused(says) from error

    async def _answer(self, method: str, path: str, body: object | None, headers: Mapping[str, str]) -> Answer:
        sent = {"Authorization": f"Bearer {self._key}", **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        call = Call(method, self._url + path, sent, None if body is None else msgspec.json.encode(body))
        answer = await self._egress.call(call, timeout_s=TIMEOUT_S, read_bytes=_MAX_ANSWER_BYTES)
        if not 200 <= answer.status < 300:
            says = f"{method} {path} was answered {answer.status}: {_detail(answer.body)}"
            raise Refused(says, _exit_status(answer.status))
        if answer.truncated:
            raise Refused(
                f"{method} {path} was answered with more than {_MAX_ANSWER_BYTES} bytes; ask for less at a time"
            )
        return answer


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[ServiceClient]:
    """A client of the service that the settings name; wherever it is, the operator has said so.

    Raises:
        Refused: There is no key to use.
    """
    key = key_to_use(settings)
    if key is None:
        says = "there is no key to use; set REMORA_API_KEY to one of the service's keys"
        raise Refused(says, CONFIGURED_WRONG)
    async with opened() as door:
        yield ServiceClient(door, settings.url, key)


@asynccontextmanager
async def opened() -> AsyncIterator[Egress]:
    """The way out; the operator has said where to, so that anywhere is allowed."""
    door = Door(allow=_ANYWHERE, clock=SystemClock())
    await door.start()
    try:
        yield door
    finally:
        await door.close()


def _exit_status(status: int) -> int:
    """Whether trying again later may help, another key would, or another command."""
    if status in {401, 403}:
        return CONFIGURED_WRONG
    return NOT_AVAILABLE if status == 429 or not 400 <= status < 500 else NOT_WELL


def key_to_use(settings: Settings) -> str | None:
    """The key that the settings name; else the service's own admin key, which never leaves this machine.

    Raises:
        Refused: The file that the service wrote it to cannot be read.
    """
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    if urlsplit(settings.url).hostname not in _LOOPBACK:
        return None
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value()
    if settings.sqlite_path is None:
        return None
    file = key_file(settings.sqlite_path)
    try:
        return file.read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read; set REMORA_API_KEY to a key of the service", CONFIGURED_WRONG) from error


def _detail(body: bytes) -> str:
    """What the problem says, with the fields at fault."""
    try:
        problem = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "no reason given"
    if not isinstance(problem, dict):
        return "no reason given"
    # Where fields are at fault, the problem's detail is the first of them.
    fields = [f"{each.get('pointer') or 'the body'}: {each.get('detail')}" for each in problem.get("errors") or []]
    return "; ".join(fields) or str(problem.get("detail") or problem.get("title"))
