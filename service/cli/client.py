"""The commands' way to a running service: its HTTP API, asked like any caller asks it.

Owns requests, answers and what is said when the service refuses. It must not know what the answers are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from service.cli.outcome import Refused
from service.egress import Call, Egress

TIMEOUT_S: Final = 30.0
_MAX_ANSWER_BYTES: Final = 16 << 20


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

    async def _ask(self, method: str, path: str, body: object | None, headers: Mapping[str, str]) -> Any:
        sent = {"Authorization": f"Bearer {self._key}", **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        call = Call(method, self._url + path, sent, None if body is None else msgspec.json.encode(body))
        answer = await self._egress.call(call, timeout_s=TIMEOUT_S, read_bytes=_MAX_ANSWER_BYTES)
        if not 200 <= answer.status < 300:
            raise Refused(f"{method} {path} was answered {answer.status}: {_detail(answer.body)}")
        return msgspec.json.decode(answer.body) if answer.body else None


def _detail(body: bytes) -> str:
    """What the problem says, with the fields at fault."""
    try:
        problem = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "no reason given"
    if not isinstance(problem, dict):
        return "no reason given"
    fields = [f"{each.get('pointer')}: {each.get('detail')}" for each in problem.get("errors") or []]
    return "; ".join([str(problem.get("detail") or problem.get("title")), *fields])
