"""The world around a measured process: a provider that takes every task, and a subscriber that takes every event.

Both count and neither thinks. A message carries its number, by which it is known again: as the job's metadata in an
event, as the task id in a callback, as the last word of the prompt in a submission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import msgspec

from benchmarks.loadgen import answer, port_of, request, serve

RESULT_URL = "https://r2.apimodels.app/images/20260117-abc123.jpeg"
_GONE = answer("404 Not Found")
_TAKEN = answer("204 No Content")


class _Metadata(msgspec.Struct):
    number: str


class _Job(msgspec.Struct):
    id: str
    metadata: _Metadata


class _EventData(msgspec.Struct):
    job: _Job


class _Event(msgspec.Struct):
    type: str
    data: _EventData


class _Task(msgspec.Struct):
    task_id: str = msgspec.field(name="taskId")


class _Envelope(msgspec.Struct):
    data: _Task


class _Submission(msgspec.Struct):
    prompt: str
    callback_url: str = msgspec.field(name="callBackUrl")


_read_event = msgspec.json.Decoder(_Event).decode
_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_submission = msgspec.json.Decoder(_Submission).decode


def envelope(number: int, *, model: bool) -> bytes:
    """What the provider says of a finished task; its callback names the model too."""
    told = f'"taskId":"task{number:09d}"' + (',"model":"sparkpix"' if model else "")
    times = '"createTime":1705123450000,"completeTime":1705123465000'
    urls = f'"resultUrls":["{RESULT_URL}"]'
    return f'{{"code":200,"msg":"success","data":{{{told},"state":"completed",{urls},{times}}}}}'.encode()


def callback(path: str, host: str, number: int) -> bytes:
    """The provider's request to a callback URL, ready to be written."""
    return request("POST", path, host, envelope(number, model=True))


def prompt(number: int) -> str:
    """A prompt that can be told from all others."""
    return f"A cute cat wearing a space helmet, number {number}"


@dataclass(slots=True)
class Seen:
    """What the world saw that it should not have, and how often the provider was asked."""

    fetches: int = 0
    strangers: int = 0  # messages that nobody waits for
    unsigned: int = 0  # events without a signature
    problems: set[str] = field(default_factory=set)


class World:
    """Provider and subscriber on 127.0.0.1; what comes is told to whoever is set as `on_submit` and `on_event`."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.callback_paths: dict[int, str] = {}
        self.event_jobs: dict[int, str] = {}  # the job ids that events named
        self.on_submit: Callable[[int], None] = self._stranger
        self.on_event: Callable[[int], None] = self._stranger
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        """Listen."""
        self._servers = [await serve(each) for each in (self._provide, self._take_event, self._take_callback)]
        ports = [port_of(server) for server in self._servers]
        self.provider_url = f"http://127.0.0.1:{ports[0]}"
        self.subscriber_url = f"http://127.0.0.1:{ports[1]}/hooks"
        self.plain_url = f"http://127.0.0.1:{ports[2]}/hooks"  # for bodies passed on as they came
        self.plain_port = ports[2]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening; connections that the measured process left open are cut."""
        for server in self._servers:
            server.close()

    def quiet(self) -> None:
        """Whatever comes from now on is a stranger."""
        self.on_submit = self.on_event = self._stranger

    def _stranger(self, _: int) -> None:
        self.seen.strangers += 1

    def _provide(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"POST /api/v1/images/generations "):
            told = _read_submission(body)
            number = int(told.prompt.rpartition(" ")[2])
            self.callback_paths[number] = "/" + told.callback_url.split("/", 3)[3]
            self.on_submit(number)
            task = f'{{"code":200,"msg":"success","data":{{"taskId":"task{number:09d}","state":"pending"}}}}'
            return answer("200 OK", task.encode())
        if head.startswith(b"GET /api/v1/images/generations?task_id=task"):
            self.seen.fetches += 1
            return answer("200 OK", envelope(int(head[43:52]), model=False))
        self.seen.problems.add(f"the provider was asked {head[:60]!r}")
        return _GONE

    def _take_event(self, head: bytes, body: bytes) -> bytes:
        event = _read_event(body)
        number = int(event.data.job.metadata.number)
        if b"\r\nwebhook-signature: v1," not in head.lower():
            self.seen.unsigned += 1
        if event.type != "job.completed":
            self.seen.problems.add(f"an event {event.type} came")
        self.event_jobs[number] = event.data.job.id
        self.on_event(number)
        return _TAKEN

    def _take_callback(self, head: bytes, body: bytes) -> bytes:
        self.on_event(int(_read_envelope(body).data.task_id[4:]))
        return _TAKEN
