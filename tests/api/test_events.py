"""The feed and the stream over HTTP: what they show, to whom, from where on, and what they say to nonsense."""

from __future__ import annotations

import json
from typing import Any

from service.api.answers.sealed_cursor import FEED, SealedCursors
from tests.api.conftest import ADMIN_KEY, PICTURE, Served
from tests.eventsource import bearer, follow


async def feed(served: Served, **query: str) -> dict[str, Any]:
    """One page."""
    answer = await served.client.get("/v1/events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def everything(served: Served, query: str) -> list[dict[str, Any]]:
    """Page for page as a caller does it: until there is no data and the cursor stays."""
    found: list[dict[str, Any]] = []
    cursor, after = "", ""
    while True:
        page = (await served.client.get(f"/v1/events?{query}{after}")).json()
        if not page["data"] and page["next_cursor"] == cursor:
            return found
        found += page["data"]
        cursor = page["next_cursor"]
        after = f"&cursor={cursor}"


def types(page: dict[str, Any]) -> list[str]:
    """The types of the events."""
    return [entry["type"] for entry in page["data"]]


async def test_feed_shows_events_oldest_first_as_they_are_sent(served: Served) -> None:
    """Each with its id, in the order in which they happened."""
    job = await served.completed()
    page = await feed(served)
    [row] = await served.rows("SELECT id, body FROM events WHERE type = 'job.completed'")

    assert types(page) == ["job.submitted", "job.completed"]
    assert page["data"][1] == {"id": row["id"], **json.loads(row["body"])}
    assert page["data"][1]["data"]["job"]["id"] == job["id"]
    assert list(page["data"][1]) == ["id", "type", "timestamp", "data"]


async def test_feed_cursor_can_be_used_again_later(served: Served) -> None:
    """At the end, too: the same cursor then has what happened since."""
    empty = await feed(served)
    await served.completed()
    first = await feed(served, cursor=empty["next_cursor"])
    end = await feed(served, cursor=first["next_cursor"])
    await served.completed()

    assert empty["data"] == end["data"] == []
    assert end["next_cursor"] == first["next_cursor"]
    assert (await feed(served, cursor=empty["next_cursor"]))["data"][:2] == first["data"]
    assert len((await feed(served, cursor=end["next_cursor"]))["data"]) == 2


async def test_feed_can_begin_behind_the_newest_event(served: Served) -> None:
    """For whoever has no use for the past."""
    await served.completed()
    now = await feed(served, **{"from": "now"})
    job = await served.completed()
    later = await feed(served, cursor=now["next_cursor"])

    assert now["data"] == []
    assert {entry["data"]["job"]["id"] for entry in later["data"]} == {job["id"]}


FILTERS: tuple[tuple[str, list[int]], ...] = (
    ("type=job.completed", [0, 1]),
    ("type=job.completed,job.submitted&job=SECOND", [1, 1]),
    ("tag=red&type=job.completed", [0]),
    ("tag=red&tag=blue&type=job.completed", [0, 1]),
    ("provider=sandbox&type=job.completed", [0, 1]),
    ("provider=apimodels", []),
    ("operation=generate&type=job.completed&limit=1", [0, 1]),
    ("operation=edit", []),
    ("job=FIRST&type=job.completed", [0]),
    ("job=FIRST,SECOND&type=job.completed&limit=1", [0, 1]),
    ("type=ping", []),
)


async def test_feed_filters(served: Served) -> None:
    """By type, provider, operation, tag and job; several values mean any of them."""
    jobs = [(await served.completed(tags=tags))["id"] for tags in (["red", "round"], ["blue"])]
    for query, expected in FILTERS:
        asked = query.replace("FIRST", jobs[0]).replace("SECOND", jobs[1])
        found = await everything(served, asked)

        assert [jobs.index(entry["data"]["job"]["id"]) for entry in found] == expected, query


async def test_feed_leaves_out_what_concerns_no_job_where_jobs_are_asked_for(served: Served) -> None:
    """A ping comes with everything and by its type."""
    made = await served.client.post("/v1/subscriptions", json={"url": "http://127.0.0.1:9/", "events": ["ping"]})
    await served.client.post(f"/v1/subscriptions/{made.json()['id']}/test")
    await served.completed()

    assert types(await feed(served)) == ["ping", "job.submitted", "job.completed"]
    assert types(await feed(served, type="ping")) == ["ping"]
    assert types(await feed(served, provider="sandbox")) == ["job.submitted", "job.completed"]


async def test_feed_says_what_is_not_kept_any_more(served: Served) -> None:
    """410 with the oldest cursor, which can be used; the stream says the same before it begins."""
    old = (await feed(served))["next_cursor"]
    await served.completed()
    last = (await feed(served))["data"][0]["id"]
    await served.sql("DELETE FROM deliveries")
    await served.sql("DELETE FROM events WHERE pos = 1")
    await served.sql("UPDATE accounts SET feed_floor = 1")
    refused = await served.client.get("/v1/events", params={"cursor": old})
    streams = [
        await served.client.get("/v1/events/stream", params={"cursor": old}),
        await served.client.get("/v1/events/stream", headers={"Last-Event-ID": last}),
        await served.client.get("/v1/events/stream", params={"lastEventId": last}),
    ]

    assert refused.status_code == 410
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "cursor_expired"
    assert types(await feed(served, cursor=refused.json()["oldest_cursor"])) == ["job.completed"]
    assert types(await feed(served)) == ["job.completed"]
    assert [(answer.status_code, answer.json()) for answer in streams] == [(410, refused.json())] * 3


async def test_reader_of_an_erased_event_has_missed_nothing(served: Served) -> None:
    """Who has read all goes on by cursor and by id where the newest event was erased: at once, and after further ones."""
    await served.completed()
    job = await served.completed()
    caught_up = await feed(served)
    last = {"Last-Event-ID": caught_up["data"][-1]["id"]}
    erased = await served.client.delete(f"/v1/jobs/{job['id']}")
    quiet = await feed(served, cursor=caught_up["next_cursor"])
    further = await served.completed()
    behind = await feed(served, cursor=caught_up["next_cursor"])
    async with follow(served.service.url, headers=bearer(ADMIN_KEY) | last) as source:
        live = [await source.event() for _ in range(2)]

    assert erased.status_code == 204
    assert (quiet["data"], quiet["next_cursor"]) == ([], caught_up["next_cursor"])
    assert [entry["data"]["job"]["id"] for entry in behind["data"]] == [further["id"]] * 2
    assert [each and each.id for each in live] == [entry["id"] for entry in behind["data"]]


async def test_cursor_of_a_log_that_was_lost_is_refused_also_after_erasing(served: Served) -> None:
    """What lies ahead of all that was ever there comes from another database."""
    job = await served.completed()
    await served.client.delete(f"/v1/jobs/{job['id']}")
    [top] = await served.rows("SELECT max(left_pos) AS pos FROM events")
    ahead = await served.client.get("/v1/events", params={"cursor": await _cursor(served, top["pos"] + 1)})

    assert ahead.status_code == 410


async def _cursor(served: Served, place: int) -> str:
    """The cursor of a place, as the service writes it."""
    own = (await served.client.get("/v1/account")).json()["id"]
    return SealedCursors(served.service._base.store.box, 0).text(FEED, own, place)


async def test_nothing_of_another_account_is_seen(served: Served) -> None:
    """Neither with a cursor nor with an id of theirs, nor live."""
    await served.completed()
    theirs = await feed(served)
    async with await served.account() as other:
        key = other.headers["authorization"].removeprefix("Bearer ")
        mine = await other.get("/v1/events")
        by_cursor = await other.get("/v1/events", params={"cursor": theirs["next_cursor"]})
        by_id = await other.get("/v1/events/stream", headers={"Last-Event-ID": theirs["data"][0]["id"]})
        by_job = await other.get("/v1/events", params={"job": theirs["data"][0]["data"]["job"]["id"]})
        async with follow(served.service.url, headers=bearer(key)) as stream:
            await stream.comment()
            await served.completed()
            job = (await other.post("/v1/jobs", json=PICTURE)).json()["id"]
            heard = await stream.events(2)

    assert mine.json()["data"] == by_job.json()["data"] == []
    assert by_cursor.status_code == by_id.status_code == 410
    assert {event.json["data"]["job"]["id"] for event in heard} == {job}


NONSENSE = (
    *("cursor=", "cursor=nonsense", "cursor=cG9zOi0x", "cursor=cG9zOjk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "cursor=am9iOjE"),
    *(
        "cursor=cG9zOjA&cursor=cG9zOjA",
        "cursor=%00",
        "from=then",
        "from=now&cursor=cG9zOjA",
        "wait=1",
        "subscription=x",
    ),
    *("type=", "type=job.eaten", "type=,", "job=job_1", "job=", "provider=", "tag=%00"),
)


async def test_nonsense_is_refused(served: Served) -> None:
    """With 400 and the parameter's name, by the feed and by the stream."""
    for query in NONSENSE:
        for path in ("/v1/events", "/v1/events/stream"):
            answer = await served.client.get(f"{path}?{query}")

            assert answer.status_code == 400, answer.text
            assert repr(query.partition("=")[0]) in answer.json()["detail"]
    assert (await served.client.get("/v1/events?tag=%ff")).status_code == 400


NEVER_GIVEN = (
    *("evt_0199a000-0000-7000-8000-00000000000f", "job_1", "nonsense", "0", "cG9zOjk5OTk", "cG9zOi0x", "\xff\xfe"),
    *("a" * 4_000, "evt_' OR 1=1 --", "cG9zOjA*"),
)


async def test_id_that_was_never_given_is_gone(served: Served) -> None:
    """410 with where to begin, as for one that is not kept any more."""
    await served.completed()
    for last_id in NEVER_GIVEN:
        async with follow(served.service.url, headers=bearer(ADMIN_KEY, last_id)) as stream:
            assert stream.status == 410, last_id
            body = json.loads(await stream.reader.readexactly(int(stream.headers["content-length"])))

        assert stream.headers["content-type"] == "application/problem+json"
        assert body["oldest_cursor"] == await _cursor(served, 0)


async def test_stream_begins_where_it_is_told(served: Served) -> None:
    """The header before the parameters, an id before a cursor; without any of them what comes from now on."""
    await served.completed()
    start, end = "cG9zOjA", (await feed(served))["next_cursor"]
    ids = [entry["id"] for entry in (await feed(served))["data"]]
    for query, header, expected in (
        ("", ids[0], [ids[1]]),
        (f"?cursor={end}", ids[0], [ids[1]]),
        (f"?lastEventId={ids[0]}&cursor={end}", "", [ids[1]]),
        (f"?cursor={start}", "", ids),
        ("", start, ids),
        ("?from=oldest", "", ids),
        ("?from=oldest&type=job.completed", "", [ids[1]]),
    ):
        headers = bearer(ADMIN_KEY, header)
        async with follow(served.service.url, f"/v1/events/stream{query}", headers=headers) as stream:
            assert [event.id for event in await stream.events(len(expected))] == expected, (query, header)


async def test_stream_head_suits_proxies_and_caches(served: Served) -> None:
    """Nobody keeps it or collects it."""
    async with follow(served.service.url, headers=bearer(ADMIN_KEY)) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["x-content-type-options"] == "nosniff"


async def test_event_is_one_line_whatever_it_holds(served: Served) -> None:
    """Line breaks of all kinds in a prompt stay inside the JSON."""
    prompt = "one\ntwo\r\nthree\u2028four\x0b\x85five ü 猫"
    async with follow(served.service.url, headers=bearer(ADMIN_KEY)) as stream:
        await stream.comment()
        await served.completed(input={"prompt": prompt})
        events = await stream.events(2)

    assert [event.json["data"]["job"]["input"]["prompt"] for event in events] == [prompt, prompt]


async def test_feed_and_stream_need_a_key_that_reads_jobs(served: Served) -> None:
    """401 without one, 403 without the scope."""
    async with await served.account("deliveries", "subscriptions") as other:
        for path in ("/v1/events", "/v1/events/stream"):
            assert (await served.stranger.get(path)).status_code == 401
            assert (await other.get(path)).status_code == 403


async def test_other_methods_are_refused(served: Served) -> None:
    """A HEAD must not open a stream, and OPTIONS says what there is."""
    for path in ("/v1/events", "/v1/events/stream"):
        for method in ("POST", "DELETE"):
            assert (await served.client.request(method, path)).status_code == 405
        assert (await served.client.head(path)).status_code == 200
        assert (await served.client.options(path)).headers["allow"] == "GET, HEAD, OPTIONS"
    assert served.service._stages.hub.count == 0


async def test_too_many_streams_of_an_account_are_refused(served: Served) -> None:
    """429 with when to come back; other accounts have theirs."""
    served.service._stages.hub.limit_per_account = 1
    async with await served.account() as other, follow(served.service.url, headers=bearer(ADMIN_KEY)) as stream:
        await stream.comment()
        refused = await served.client.get("/v1/events/stream")
        theirs = other.headers["authorization"].removeprefix("Bearer ")
        async with follow(served.service.url, headers=bearer(theirs)) as second:
            assert second.status == 200

    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_streams"
    assert refused.headers["retry-after"] == "10"
