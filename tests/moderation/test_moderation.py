"""Moderation: what is judged of an input, who decides, and what silence means; against a real server, and with odd code."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web

from service.clock import SeededRandomness, VirtualClock
from service.egress.door import Door
from service.environment import load
from service.errors import SettingsInvalid
from service.moderation.moderation import Asked, Judgement, Moderation, Moderator, Ruling, Silent, is_ruled, texts_of
from service.moderation.moderators import LOOK_S, HTTPModerator, ListModerator, moderators
from service.telemetry import Metrics

ASKED = Asked("acc_1", "apimodels", "generate", ("a cat", "a dog"))


class Says:
    """A moderator that says what it is told to."""

    def __init__(self, said: Judgement | Silent, name: str = "fake") -> None:
        self.said, self.name, self.asked = said, name, 0

    async def judge(self, asked: Asked) -> Judgement | Silent:
        self.asked += 1
        return self.said


def chain(*asked: Moderator, fail_open: bool = False, clock: VirtualClock | None = None) -> Moderation:
    randomness = SeededRandomness(1)
    return Moderation(
        asked, fail_open=fail_open, clock=clock or VirtualClock(), randomness=randomness, observer=Metrics()
    )


async def ruled(moderation: Moderation, **given: Any) -> Ruling:
    return await moderation.rule("acc_1", "apimodels", "generate", given or {"prompt": "a cat"})


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2).decode()


def test_texts_are_all_strings_but_links_and_files() -> None:
    """At any depth; a prompt that looks like a link is still a prompt, and so is a link where none belongs."""
    given = {
        "prompt": "https://x/?q=something bad",
        "model": "sparkpix",
        "image": "https://x/cat.png",
        "imageUrls": ["https://x/cat.png", "https://x/a cat.png"],
        "mask": "data:image/png;base64,AAAA",
        "style": PNG,
        "image_prompt": PNG,
        "reference": f"data:image/png;base64,{PNG}",
        "note": "https://bomb",
        "n": 2,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "draw"}, {"url": f"data:image/png;base64,{PNG}"}]}
        ],
        "blank": "  ",
    }
    known = {"reference", "imageUrls", "image_prompt", "note", "blank"}

    assert list(texts_of(given, known)) == [
        "https://x/?q=something bad",
        "sparkpix",
        "https://x/a cat.png",
        "https://bomb",
        "user",
        "text",
        "draw",
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"style": "bomb " * 60},
        {"style": "bomb\n" * 60},
        {"style": "bomb/" * 60},
        {"style": "bombs" * 60 + "\n" + "bombs" * 60},
        {"image_prompt": "bomb " * 60},
        {"image_prompt": "https://x/bomb"},
        {"prompt": {"0": PNG + "bomb"}},
        {"prompt": {"image": "https://bomb"}},
        {"prompt": f"data:image/png;base64,{PNG}"},
        {"image_url": "data:text/plain;base64,Ym9tYg=="},
        {"image_url": "data:,bomb"},
        {"image_url": "https://x/" + "bomb" * 3_000},
        {"note": "https://bomb"},
        {"note": "data:image/png;base64,bomb/bomb"},
        {"curl": "https://bomb"},
    ],
)
def test_words_do_not_pass_as_files_or_links(given: dict[str, Any]) -> None:
    """A file is known by its first bytes, a link by the field that it stands in; a prompt is neither."""
    [value] = given.values()
    [text] = value.values() if isinstance(value, dict) else [value]

    assert next(texts_of(given, {*given})) == text


@pytest.mark.parametrize("wrapped", [76, 64])
@pytest.mark.parametrize("length", [225, 513, 570])
def test_files_in_lines_are_files(wrapped: int, length: int) -> None:
    """As mail programs and `base64` write them, with or without a last line break, and as URLs want them."""
    encoded = base64.b64encode((b"\xff\xd8\xff\xe0" + bytes(length))[:length] + b"\xff\xfe\xfb").decode()
    lines = [encoded[at : at + wrapped] for at in range(0, len(encoded), wrapped)]
    forms = ["\n".join(lines), "\r\n".join(lines) + "\r\n", encoded.translate(str.maketrans("+/", "-_")).rstrip("=")]

    assert [list(texts_of({"input_0": form}, {"input_0"})) for form in forms] == [[], [], []]


def test_names_of_fields_are_judged_that_no_card_gave() -> None:
    """At any depth, as one text; what cards and APIs call their fields is left out."""
    given = {"naked_mode": True, "sub": {"bomb instructions": True, "url": "a"}, "extra": [{"again": 1}, {"again": 2}]}

    assert list(texts_of(given, {"naked_mode"})) == ["a", "sub\nbomb instructions\nextra\nagain"]


@pytest.mark.parametrize(
    ("first", "second", "fail_open", "verdict", "by"),
    [
        (Judgement(False), Judgement(False), False, "passed", "a,b"),
        (Judgement(True, ("x",)), Judgement(False), False, "blocked", "a"),
        (Judgement(False), Judgement(True), True, "blocked", "b"),
        (Silent("down"), Judgement(False), False, "waiting", "a"),
        (Silent("down"), Judgement(False), True, "skipped", "a"),
        (Silent("down"), Judgement(True), False, "blocked", "b"),
        (Silent("down"), Judgement(True), True, "blocked", "b"),
    ],
)
async def test_first_objection_decides(
    first: Judgement | Silent, second: Judgement | Silent, fail_open: bool, verdict: str, by: str
) -> None:
    """Silence is no objection and no consent: what it means is the operator's setting, unless another one objects."""
    ruling = await ruled(chain(Says(first, "a"), Says(second, "b"), fail_open=fail_open))

    assert (ruling.verdict, ruling.by) == (verdict, by)


async def test_input_without_texts_passes_and_too_long_a_one_does_not() -> None:
    """Nobody is asked about nothing; what nobody can judge does not slip through."""
    says = Says(Judgement(True))
    assert (await ruled(chain(says), image="https://x/y.png")).verdict == "passed"
    long = await ruled(chain(says), prompt="x" * 200_001)
    skipped = await ruled(chain(says, fail_open=True), prompt="x" * 200_001)

    assert (long.verdict, long.categories, skipped.verdict, says.asked) == ("blocked", ("too_long",), "skipped", 0)


async def test_moderator_that_is_down_is_asked_now_and_then() -> None:
    """Its time limit must not hold up every job; when it is back, the next one hears it."""
    clock, says = VirtualClock(), Says(Silent("down"))
    moderation = chain(says, clock=clock)
    for _ in range(20):
        assert (await ruled(moderation)).verdict == "waiting"
    asked_while_down, says.said = says.asked, Judgement(False)
    clock.advance(7)

    assert asked_while_down == 5
    assert (await ruled(moderation)).verdict == (await ruled(moderation)).verdict == "passed"


@pytest.mark.parametrize(("fail_open", "first"), [(True, 1), (False, 5)])
async def test_moderator_that_is_down_is_told_once(fail_open: bool, first: int) -> None:
    """At the first job that goes unjudged, or when jobs wait; and when it is back."""
    clock, says = VirtualClock(), Says(Silent("odd"))
    moderation = chain(says, clock=clock, fail_open=fail_open)
    told = []
    with structlog.testing.capture_logs() as logs:
        for _ in range(7):
            await ruled(moderation)
            told.append(len(logs))
        says.said = Judgement(False)
        clock.advance(7)
        await ruled(moderation)
        await ruled(moderation)

    assert told == [0] * (first - 1) + [1] * (8 - first)
    assert [line["event"] for line in logs] == ["moderator_down", "moderator_back"]


async def test_categories_are_bounded_and_can_be_shown() -> None:
    """Whoever said them: no control characters, none twice, none empty, few and short."""
    words = ("x" * 5_000, "a\x00\n\u202eb", "ab", "\n", *map(str, range(200)))
    ruling = await ruled(chain(Says(Judgement(True, words))))

    assert ruling.categories[:3] == ("x" * 100, "ab", "0")
    assert len(ruling.categories) <= 50


def test_record_is_kept_and_only_waiting_is_asked_again() -> None:
    """The form that the API shows."""
    record = Ruling("blocked", "list", ("line 3",)).record(0)

    assert record == '{"verdict":"blocked","by":"list","categories":["line 3"],"at":"1970-01-01T00:00:00.000Z"}'
    assert is_ruled(record)
    assert not is_ruled(None)
    assert not is_ruled(Ruling("waiting", "http").record(0))


async def test_list_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A wrong or missing file leaves the last one in force."""
    path, clock = tmp_path / "words", VirtualClock()
    path.write_text("cat\n", "utf-8")
    moderator = ListModerator(path, clock)

    async def lines() -> tuple[str, ...]:
        clock.advance(LOOK_S)
        said = await moderator.judge(ASKED)
        assert isinstance(said, Judgement)
        return said.categories

    def write(text: bytes, seconds: int) -> None:
        path.write_bytes(text)
        os.utime(path, (seconds, seconds))

    assert await lines() == ("word list",)
    for second, held in enumerate((b"bird\n", b"# nothing\ndog\n", b"/(/\n", b"", b"# nothing\n")):
        write(held, second)
        assert await lines() == (("word list",) if second else ())
    path.unlink()
    assert await lines() == ("word list",)
    write(b"bird\n", 9)
    assert await lines() == ()


async def test_list_that_could_not_be_read_once_is_read_when_it_can(tmp_path: Path) -> None:
    """Also where it is the very file that was there before it could not be read; told once."""
    path, clock, away = tmp_path / "words", VirtualClock(), tmp_path / "away"
    path.write_text("bird\n", "utf-8")
    moderator = ListModerator(path, clock)
    with structlog.testing.capture_logs() as logs:
        path.rename(away)
        path.mkdir()  # it is there and has a stamp, but cannot be read
        for _ in range(3):
            clock.advance(LOOK_S)
            await moderator.judge(ASKED)
        path.rmdir()
        away.write_text("cat\n", "utf-8")
        away.rename(path)
        clock.advance(LOOK_S)
        said = await moderator.judge(ASKED)

    assert said == Judgement(True, ("word list",))
    events = [line["event"] for line in logs]
    assert events == ["moderation_list_wrong", "moderation_list_read", "moderation_list_hit"]
    assert logs[2]["lines"] == (1,)


async def test_list_that_became_readable_is_read_though_nothing_else_changed(tmp_path: Path) -> None:
    """Its rights were set a moment too late: neither its time nor its size tells."""
    path, clock, new = tmp_path / "words", VirtualClock(), tmp_path / "new"
    path.write_text("bird\n", "utf-8")
    moderator = ListModerator(path, clock)
    new.write_text("cat\n", "utf-8")
    new.replace(path)
    path.chmod(0)
    clock.advance(LOOK_S)
    await moderator.judge(ASKED)  # who runs this as root reads it here already
    path.chmod(0o644)
    clock.advance(LOOK_S)

    assert await moderator.judge(ASKED) == Judgement(True, ("word list",))


@pytest.mark.parametrize("text", [b"/(/\n", b"fine\n\xff\n", None])
def test_wrong_list_is_told_at_the_start(text: bytes | None, tmp_path: Path) -> None:
    """With the setting's name and the line."""
    path = tmp_path / "words"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SettingsInvalid, match=r"REMORA_MODERATION_LIST: .*words: (line [12]|cannot be read)"):
        ListModerator(path, VirtualClock())


class Service:
    """An endpoint that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b"{}"
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.late: asyncio.Event | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((dict(request.headers), await request.json()))
        if self.late is not None:
            await self.late.wait()
        location = {"Location": "/elsewhere"} if 300 <= self.status < 400 else {}
        return web.Response(status=self.status, body=self.answer, content_type="application/json", headers=location)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    app = web.Application()
    app.router.add_post("/{tail:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/v1/moderations"
    yield made
    await runner.cleanup()


@pytest.fixture
async def http(service: Service, tmp_path: Path) -> AsyncIterator[HTTPModerator]:
    given = {
        "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
        "REMORA_MODERATION_URL": service.url,
        "REMORA_MODERATION_KEY": "sk-moderator",
        "REMORA_MODERATION_TIMEOUT": "500ms",
    }
    settings = load(given, tmp_path)
    door = Door(allow=settings.egress_allow, clock=VirtualClock())
    await door.start()
    [made] = moderators(settings, door, VirtualClock(), {})
    assert isinstance(made, HTTPModerator)
    yield made
    await door.close()


async def test_http_moderator_asks_in_openais_form(http: HTTPModerator, service: Service) -> None:
    """A result for each text; the categories that are true are told."""
    service.answer = b"""{"id": "m", "results": [{"flagged": false, "categories": {"sexual": false}},
        {"flagged": true, "categories": {"sexual": true, "violence": false, "odd": "true"}}]}"""
    said = await http.judge(ASKED)
    [(headers, body)] = service.asked

    assert said == Judgement(True, ("sexual",))
    assert body == {"model": "omni-moderation-latest", "input": ["a cat", "a dog"]}
    assert headers["Authorization"] == "Bearer sk-moderator"
    assert "sk-moderator" not in repr(http)


async def test_key_in_an_answer_is_shown_to_nobody(http: HTTPModerator, service: Service) -> None:
    """Whole, in pieces of a dozen characters, in capitals, or with characters in between that nobody sees."""
    names = ["Bearer sk-moderator", "sk-\u200bmoderator", "SK-MODERATOR", "x" * 95 + "sk-moderator", "moderate"]
    categories = dict.fromkeys(names, True)
    service.answer = msgspec.json.encode({"results": [{"flagged": True, "categories": categories}] * 2})
    ruling = await chain(http).rule("acc_1", "apimodels", "generate", {"prompt": "a", "model": "b"})

    assert ruling.categories == ("[hidden]", "moderate")


async def test_spoilt_answer_of_a_moderator_is_read(http: HTTPModerator, service: Service) -> None:
    """A mark before it and a score that is no number change nothing of what it judges."""
    service.answer = b'\xef\xbb\xbf{"results": [{"flagged": false}, {"flagged": true, "category_scores": {"a": NaN}}]}'

    assert await http.judge(ASKED) == Judgement(True, ())


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b"<html>"),
        (200, b"[" * 5_000),
        (200, b"[]"),
        (200, b'{"results": []}'),
        (200, b'{"results": [{"flagged": false}]}'),  # one text was not judged
        (200, b'{"results": [{"flagged": "no"}, {"flagged": false}]}'),
        (200, b'{"results": [{"flagged": false}, null]}'),
        (200, b'{"results": [{"flagged": false}, {"flagged": false}]}' + b" " * 300_000),
        (302, b""),
        (401, b'{"error": "sk-moderator is wrong"}'),
        (429, b""),
        (500, b""),
    ],
)
async def test_odd_answers_are_silence(status: int, answer: bytes, http: HTTPModerator, service: Service) -> None:
    """Never taken for consent, never quoted, never followed elsewhere."""
    service.status, service.answer = status, answer
    said = await http.judge(ASKED)

    assert isinstance(said, Silent)
    assert "sk-moderator" not in said.reason
    assert len(service.asked) == 1


async def test_late_and_unreachable_moderators_are_silent(http: HTTPModerator, service: Service) -> None:
    """Within the time limit."""
    service.late = asyncio.Event()
    late = await http.judge(ASKED)
    service.late.set()
    gone = await HTTPModerator(http.egress, "http://127.0.0.1:9/", None, "m", 0.5).judge(ASKED)

    assert isinstance(late, Silent)
    assert isinstance(gone, Silent)


class Plugin:
    """Code of others."""

    def __init__(self, said: object) -> None:
        self.said = said

    async def moderate(self, asked: Asked) -> object:
        if isinstance(self.said, BaseException):
            raise self.said
        if self.said == "late":
            await asyncio.Event().wait()
        return self.said


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (Judgement(True, ("mine",)), Judgement(True, ("mine",))),
        (Judgement(False, (1,)), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (None, Silent("it gave no Judgement")),
        (Judgement(True, ["mine"]), Judgement(True, ("mine",))),  # type: ignore[arg-type]
        (Judgement(None, ()), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (Judgement(0, ()), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (Judgement("no", ()), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (Judgement(True, None), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (Judgement(True, {"a"}), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (Judgement(True, "violence"), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (Judgement(True, iter(["a"])), Silent("it gave no Judgement")),  # type: ignore[arg-type]
        (object.__new__(Judgement), Silent("it raised AttributeError")),
        (asyncio.CancelledError(), Silent("it raised CancelledError")),
        (SystemExit(1), Silent("it raised SystemExit")),
        (ValueError("a cat"), Silent("it raised ValueError")),
        ("late", Silent("it did not answer within 0.05 s")),
    ],
)
async def test_plugin_is_asked_and_breaks_nothing(does: object, said: Judgement | Silent, tmp_path: Path) -> None:
    """What it gives is checked, what it raises is silence and is not quoted."""
    settings = load({"REMORA_MODERATION_TIMEOUT": "50ms"}, tmp_path)
    door = Door(allow=(), clock=VirtualClock())
    [moderator] = moderators(settings, door, VirtualClock(), {"mine": lambda: Plugin(does)})

    assert moderator.name == "mine"
    assert await moderator.judge(ASKED) == said


async def test_plugin_ends_with_the_job_that_is_cancelled(tmp_path: Path) -> None:
    """A service that stops is no silence of a moderator."""
    begun = asyncio.Event()

    class Waits:
        async def moderate(self, asked: Asked) -> Judgement:
            begun.set()
            await asyncio.Event().wait()
            return Judgement(False)

    door = Door(allow=(), clock=VirtualClock())
    [moderator] = moderators(load({}, tmp_path), door, VirtualClock(), {"mine": Waits})
    judging = asyncio.create_task(moderator.judge(ASKED))
    await begun.wait()
    judging.cancel()

    with pytest.raises(asyncio.CancelledError):
        await judging


@pytest.mark.parametrize("loader", [object, lambda: 1 / 0])
async def test_plugin_that_cannot_be_used_stops_the_start(loader: Any, tmp_path: Path) -> None:
    """Unmoderated is nothing that a service may quietly be."""
    door = Door(allow=(), clock=VirtualClock())
    with pytest.raises(SettingsInvalid, match=r"remora\.moderators: 'mine'"):
        moderators(load({}, tmp_path), door, VirtualClock(), {"mine": loader})
