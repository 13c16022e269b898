"""How long the worst requests hold the event loop: one of each kind, sent to a real service in a thread of its own.

Held is the processor time of one round of the loop, from one look at its sockets to the next, so that a busy machine changes
nothing; late is by how much a tick of every millisecond missed its time, which shows a thread that keeps the interpreter.
Run: `python -m benchmarks.holds [--only NAME]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from service.app import Service
from service.environment import load

ADMIN_KEY: Final = "rmk_an-admin-key-for-benchmarks-only"
TICK_S: Final = 0.001
_MOST: Final = 16 * 2**20 - 300  # bytes of a job's body
_MANY: Final = 49_000  # values of a body
NO_JOB: Final = "/v1/jobs/job_01990000-0000-7000-8000-000000000000"
NO_SUBSCRIPTION: Final = "/v1/subscriptions/sub_01990000-0000-7000-8000-000000000000"
NO_ACCOUNT: Final = "/v1/accounts/acc_01990000-0000-7000-8000-000000000000"


class WatchedLoop(asyncio.SelectorEventLoop):
    """A loop that keeps the processor time of its longest round and the lateness of its latest tick, in seconds."""

    held = 0.0
    late = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc] # the one place where a round begins and ends; typeshed leaves it out
        self.held = max(self.held, time.thread_time() - began)

    def watch(self) -> None:
        """Begin to tick."""
        self._due = self.time() + TICK_S
        self.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self.late = max(self.late, self.time() - self._due)
        self.watch()


@dataclass(slots=True)
class Watched:
    """A service on a loop and in a thread of its own."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    loop: WatchedLoop = field(default_factory=WatchedLoop)
    url: str = ""
    _thread: threading.Thread | None = None
    _service: Service | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._thread = threading.Thread(target=self.loop.run_forever, name="service")
        self._thread.start()
        try:
            self.run(self._open())
        except BaseException:
            self._stop()
            raise
        self.loop.call_soon_threadsafe(self.loop.watch)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        try:
            if self._service is not None:
                self.run(self._service.close())
        finally:
            self._stop()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def _open(self) -> None:
        given = {
            "REMORA_DATABASE_URL": f"sqlite:///{self.directory}/remora.db",
            "REMORA_PORT": "0",
            "REMORA_ADMIN_KEY": ADMIN_KEY,
            "REMORA_STORAGE_URL": "none",
            "REMORA_LOG_LEVEL": "error",
            "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
            "REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-none",
            "REMORA_PROVIDERS__APIMODELS__BASE_URL": "http://127.0.0.1:9",
            "REMORA_PROVIDERS__SHARKAI__API_KEY": "sk-none",
            "REMORA_PROVIDERS__SHARKAI__BASE_URL": "http://127.0.0.1:9",
        }
        self._service = await Service.open(load(given | self.environment, self.directory))
        await self._service.listen()
        self.url = self._service.url

    def _stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        assert self._thread is not None
        self._thread.join()
        self.loop.close()

    @contextlib.contextmanager
    def reset(self) -> Iterator[None]:
        """Measure what happens inside."""

        def begin() -> None:
            self.loop.held = self.loop.late = 0.0

        done = threading.Event()
        self.loop.call_soon_threadsafe(begin)
        yield
        self.loop.call_soon_threadsafe(done.set)
        done.wait(60)


@dataclass(frozen=True, slots=True)
class Worst:
    """A request that is as hard as its route lets it be; `body` makes it anew, since it may be large."""

    name: str
    path: str
    body: Callable[[], bytes] | None = None
    method: str = "POST"


def _texts(count: int, text: bytes) -> bytes:
    return b"[" + b",".join([b'"' + text + b'"'] * count) + b"]"


def _named(count: int, value: bytes = b"1") -> bytes:
    return b"{" + b",".join(b'"k%d":%b' % (n, value) for n in range(count)) + b"}"


def _filled(unit: bytes) -> bytes:
    return b'"' + unit * (_MOST // len(unit)) + b'"'


def _job(given: bytes, provider: bytes = b"sandbox") -> bytes:
    return b'{"provider":"%b","operation":"generate","input":%b}' % (provider, given)


def _prompted(text: bytes) -> bytes:
    return _cat(prompt=text)


def _cat(**more: bytes) -> bytes:
    fields = {"model": b'"sparkpix"', "prompt": b'"A cat"', "aspect_ratio": b'"16:9"'} | more
    return b'{"provider":"apimodels","operation":"generate","input":{%b}}' % b",".join(
        b'"%b":%b' % (name.encode(), value) for name, value in fields.items()
    )


def _with(name: str, value: bytes) -> bytes:
    return b'{"provider":"sandbox","operation":"generate","input":{"prompt":"A cat"},"%b":%b}' % (name.encode(), value)


_URL: Final = b"https://pictures.example/%b.png" % (b"x" * 170)

#: Bodies for `POST /v1/jobs`.
JOB_BODIES: Final[dict[str, Callable[[], bytes]]] = {
    "image URLs, 10 MB": lambda: _cat(image_urls=_texts(_MANY, _URL)),
    "image URLs, 1,000": lambda: _cat(image_urls=_texts(1_000, b"https://pictures.example/" + b"x" * 8_000)),
    "long image URLs": lambda: _cat(image_urls=_texts(15, b"https://pictures.example/" + b"x" * 1_000_000)),
    "unknown names": lambda: _named(_MANY),
    "unknown input names": lambda: _job(_named(_MANY), b"apimodels"),
    "unknown long input names": lambda: _job(
        b"{" + b",".join(b'"%06d%b":1' % (n, b"x" * 300) for n in range(_MANY)) + b"}", b"apimodels"
    ),
    "unknown nested input": lambda: _cat(more=_named(_MANY, b'"a"')),
    "values": lambda: _cat(more=_texts(_MANY, b"a")),
    "objects": lambda: _cat(more=b"[%b]" % b",".join([b'{"a":1}'] * (_MANY // 2))),
    "deep": lambda: _job(b"[" * 30 + b",".join([b"1"] * _MANY) + b"]" * 30),
    "letters": lambda: _prompted(_filled(b"A")),
    "line feeds": lambda: _prompted(_filled(b"\\n")),
    "backslashes": lambda: _prompted(_filled(b"\\\\")),
    "escapes": lambda: _prompted(_filled(b"\\u00e9")),
    "escaped pairs": lambda: _prompted(_filled(b"\\ud83d\\ude00")),
    "emoji": lambda: _prompted(_filled("😀".encode())),
    "accents": lambda: _prompted(_filled("é".encode())),
    "blanks": lambda: _prompted(_filled(b" ")),
    "words": lambda: _prompted(_filled(b"a, ")),
    "brackets": lambda: _prompted(b'"' + b"[" * 40_000 + b"\\n" * ((_MOST - 80_000) // 2) + b'"'),
    "1 KiB texts": lambda: _cat(more=_texts(15_000, b"\\n" * 500)),
    "4 KiB texts": lambda: _cat(more=_texts(3_900, b"\\n" * 2_000)),
    "floats": lambda: _cat(more=b"[%b]" % b",".join([b"0." + b"1" * 300] * _MANY)),
    "cut off": lambda: _prompted(_filled(b"A"))[:-3],
    "half a pair": lambda: _prompted(b'"' + b"A" * (_MOST - 1000) + b'\\ud800"'),
    "no UTF-8": lambda: _prompted(b'"' + b"A" * (_MOST - 1000) + b'\xff"'),
    "line feeds around": lambda: b"\n" * _MOST + b"{",
    "two names alike": lambda: _job(_named(_MANY // 2)[:-1] + b',"k0":1}'),
    "long name": lambda: _job(b"{%b:1}" % _filled(b"A")),
    "data URL": lambda: _cat(image_urls=b"[%b]" % _filled(b"A").replace(b'"', b'"data:image/png;base64,', 1)),
    "data URLs": lambda: _cat(image_urls=_texts(15, b"data:image/png;base64," + b"iVBORw0KGgo" + b"A" * 1_000_000)),
    "image field": lambda: _job(
        b'{"model":"openai/gpt-image-2","prompt":"x","image":"data:image/png;base64,%b"}' % (b"A" * 13_000_000),
        b"sharkai",
    ),
    "tags": lambda: _with("tags", _texts(_MANY, b"t")),
    "long tags": lambda: _with("tags", _texts(10, b"t" * 1_500_000)),
    "metadata": lambda: _with("metadata", _named(_MANY, b'"v"')),
    "long metadata": lambda: _with("metadata", _named(50, b'"%b"' % (b"v" * 300_000))),
    "metadata that fits": lambda: _with("metadata", _named(50, b'"%b"' % (b"v" * 1_000))),
    "callback_events": lambda: _with("callback_events", _texts(_MANY, b"job.completed")),
    "long callback_url": lambda: _with("callback_url", b'"http://a.example/%b"' % (b"x" * 15_000_000)),
    "a callback_url of dots": lambda: _with("callback_url", b'"http://%b"' % (b"a." * 1_000)),
    "long provider": lambda: b'{"provider":%b,"input":{}}' % _filled(b"A"),
    "long model": lambda: _cat(model=_filled(b"A")),
    "numbers": lambda: _cat(prompt=b"9" * 1_000_000),
}
#: Bodies of 1 MiB for every other route that takes one.
SMALL_BODIES: Final[dict[str, Callable[[], bytes]]] = {
    "unknown names": lambda: _named(_MANY),
    "values": lambda: _texts(_MANY, b"a"),
    "a text": lambda: b'{"name":"%b"}' % (b"\\n" * 520_000),
}
SUBSCRIPTION_BODIES: Final[dict[str, Callable[[], bytes]]] = {
    f"many {name}": lambda name=name: b'{"url":"https://a.example/","%b":%b}' % (name.encode(), _texts(_MANY, b"x"))
    for name in ("events", "providers", "tags", "schedule", "signatures")
} | {
    "many headers": lambda: b'{"url":"https://a.example/","headers":%b}' % _named(_MANY),
    "long header": lambda: b'{"url":"https://a.example/","headers":{"x-a":"%b"}}' % (b" " * 1_000_000),
    "long secret": lambda: b'{"url":"https://a.example/","secret":"whsec_%b"}' % (b"A" * 1_000_000),
    "long schedule": lambda: b'{"url":"https://a.example/","schedule":["%b"]}' % (b"1" * 1_000_000),
    "long url": lambda: b'{"url":"https://%b"}' % (b"a." * 500_000),
}
_ROUTES: Final = (
    ("POST", f"{NO_JOB}/cancel"),
    ("POST", f"{NO_JOB}/resubmit"),
    ("PATCH", NO_SUBSCRIPTION),
    ("POST", f"{NO_SUBSCRIPTION}/rotate-secret"),
    ("POST", f"{NO_SUBSCRIPTION}/test"),
    ("POST", f"{NO_SUBSCRIPTION}/enable"),
    ("POST", f"{NO_SUBSCRIPTION}/disable"),
    ("POST", f"{NO_SUBSCRIPTION}/replay"),
    ("POST", "/v1/subscriptions"),
    ("POST", "/v1/accounts"),
    ("PATCH", NO_ACCOUNT),
    ("POST", f"{NO_ACCOUNT}/credit"),
    ("POST", "/v1/keys"),
    ("POST", "/callbacks/x"),
)
_LISTS: Final = (
    "/v1/jobs",
    "/v1/jobs/export",
    "/v1/deliveries",
    "/v1/events",
    "/v1/usage",
    "/v1/subscriptions",
    "/v1/accounts",
)
_QUERIES: Final = {
    "long": "tag=" + "a" * 1_000,
    "encoded": "tag=" + "%C3%A9" * 1_000,
    "dots": "created_after=" + "1" * 1_000,
    "many": "&".join(f"metadata.k{n}={'v' * 100}" for n in range(49)),
    "statuses": "status=" + "queued," * 140,
    "cursor": "cursor=" + "A" * 1_000,
}


def worst() -> list[Worst]:
    """One of each kind for every route."""
    made = [Worst(f"job: {name}", "/v1/jobs", body) for name, body in JOB_BODIES.items()]
    made += [Worst(f"subscription: {name}", "/v1/subscriptions", body) for name, body in SUBSCRIPTION_BODIES.items()]
    made += [
        Worst(f"{method} {path.split('_')[0]}…{path[-8:]}: {name}", path, body, method)
        for method, path in _ROUTES
        for name, body in SMALL_BODIES.items()
    ]
    made += [
        Worst(f"GET {path}: {name}", f"{path}?{query}", None, "GET")
        for path in _LISTS
        for name, query in _QUERIES.items()
    ]
    return made


@dataclass(frozen=True, slots=True)
class Held:
    """What one request did to the loop."""

    name: str
    status: int
    held_ms: float
    late_ms: float


def measure(watched: Watched, requests: list[Worst], times: int = 1) -> list[Held]:
    """Send each, and wait until what it set off has settled; the best of some times, since others share the machine."""
    found = []
    for each in requests:
        content = each.body() if each.body is not None else None
        runs = []
        for _ in range(times):
            with watched.reset():
                status, location = _ask(watched.url, each.method, each.path, content)
                if status == 202:
                    _ask(watched.url, "GET", location, None)
            runs.append((watched.loop.held, watched.loop.late))
        held, late = map(min, zip(*runs, strict=True))
        found.append(Held(each.name, status, held * 1000, late * 1000))
    return found


def _ask(url: str, method: str, path: str, content: bytes | None) -> tuple[int, str]:
    """Ask by a client that keeps the interpreter to itself for nothing but a system call."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json", "Prefer": "wait=1"}
    client = HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        client.request(method, path, content, headers)
        answer = client.getresponse()
        answer.read()
        return answer.status, answer.headers.get("location", "")
    finally:
        client.close()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="requests whose name holds this")
    parser.add_argument("--times", type=int, default=2)
    given = parser.parse_args()
    logging.disable()
    requests = [each for each in worst() if given.only in each.name]
    with tempfile.TemporaryDirectory() as directory, Watched(Path(directory)) as watched:
        measure(watched, requests[:1])  # imports and caches
        found = measure(watched, requests, given.times)
    print(f"{'held ms':>9} {'late ms':>9}  status  request")
    for each in sorted(found, key=lambda each: -each.held_ms):
        print(f"{each.held_ms:9.1f} {each.late_ms:9.1f}  {each.status:6}  {each.name}")


if __name__ == "__main__":
    _main()
