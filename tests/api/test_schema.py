"""The description of the API: true to the routes, to the answers and to the words of the code; its page phones nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from litestar.handlers import HTTPRouteHandler
from openapi_spec_validator import OpenAPIV31SpecValidator

from service.api.openapi import document
from service.api.server import ROUTES
from service.schemas.words import JOB_EVENT_TYPES, Scope
from service.states import EVENT_TYPES, ErrorCode, JobStatus, Source
from tests.api.conftest import STUCK, Served
from tests.generated import ROOT, api_document

DOCUMENT: dict[str, Any] = json.loads(document(ROUTES))
METHODS = {"get", "post", "put", "patch", "delete"}  # HEAD is where GET is (test_edges)
#: Not an ordinary route: a mount, below which everything is a token.
CALLBACKS = {("post", "/callbacks/{token}"), ("post", "/callbacks/{token}/{rest}")}


SINCE = {"since": "2026-01-01T00:00:00Z"}
#: Here a field that is not described is a fault.
CLOSED = DOCUMENT["components"] | {
    "schemas": {
        name: schema | ({"additionalProperties": False} if "properties" in schema else {})
        for name, schema in DOCUMENT["components"]["schemas"].items()
    }
}


def _described() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def _served() -> dict[tuple[str, str], HTTPRouteHandler]:
    return {
        (method.lower(), re.sub(r":\w+\}", "}", path)): handler
        for handler in ROUTES
        if isinstance(handler, HTTPRouteHandler)
        for path in handler.paths
        for method in handler.http_methods
        if method.lower() in METHODS
    }


def test_description_has_every_route_and_no_other() -> None:
    """Nothing is served in secret, nothing is promised that is not there."""
    assert set(_described()) - CALLBACKS == set(_served())


def test_document_is_committed() -> None:
    """docs/openapi.json is what the service tells of itself, so that a change of the API is seen; `just docs` makes it so."""
    assert (ROOT / "docs" / "openapi.json").read_text("utf-8") == api_document()


def test_description_leaves_no_riddle_to_generators() -> None:
    """What generators of clients have stumbled over: free objects and lists that say nothing, words without a type, unnamed pages and calls."""
    for place, schema in _all_schemas(DOCUMENT["components"]["schemas"], ""):
        if "object" in _types(schema):
            assert {"properties", "additionalProperties"} & schema.keys(), place
        if "array" in _types(schema):
            assert "items" in schema, place
        if {"enum", "const"} & schema.keys():
            assert _types(schema), place
        assert {"allOf", "oneOf"} & schema.keys() == set(), place
        assert "anyOf" not in schema or ["$ref" in each for each in schema["anyOf"]] == [True, False], place
    for operation in (*_described().values(), *(each["post"] for each in DOCUMENT["webhooks"].values())):
        assert operation["operationId"]
        assert operation["tags"]
        for answer in operation["responses"].values():
            for media, content in answer.get("content", {}).items():
                assert media != "application/json" or "$ref" in content["schema"] or operation["tags"] == ["operations"]


def _types(schema: dict[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else kind


def _all_schemas(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str | list) or {"enum", "const", "anyOf", "allOf"} & value.keys():
            yield place, value
        for name, inner in value.items():
            yield from _all_schemas(inner, f"{place}/{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _all_schemas(inner, f"{place}/{index}")


def test_description_names_the_scope_of_each_route() -> None:
    """What the document says of keys is what the guard asks for."""
    served = _served()
    for place, operation in _described().items():
        if place not in CALLBACKS:
            assert operation.get("x-scope") == served[place].opt.get("scope"), place
        if "x-scope" not in operation and place[1] != "/metrics":
            assert operation["security"] == [], place


def test_description_is_sound() -> None:
    """References lead somewhere, ids are single, parameters of paths are declared, schemas are JSON Schema."""
    text = json.dumps(DOCUMENT)
    ids = [operation["operationId"] for operation in _described().values()]

    assert DOCUMENT["openapi"].startswith("3.1")
    assert "jsonSchemaDialect" not in DOCUMENT  # Swagger UI shows a warning for any
    assert len(ids) == len(set(ids))
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        place: Any = DOCUMENT
        for step in reference.split("/"):
            place = place[step]
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert set(re.findall(r"\{(\w+)\}", path)) == declared, path


def test_description_is_openapi() -> None:
    """A second opinion, since a comma without quotes makes fields of their own out of half a sentence."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()

    for tag in DOCUMENT["tags"]:
        assert set(tag) == {"name", "description"}
        assert tag["description"].endswith(".")
    events = [each["post"] for each in DOCUMENT["webhooks"].values()]
    used = {tag for operation in (*_described().values(), *events) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}
    assert list(_nothings(DOCUMENT)) == []


def _nothings(value: Any, place: str = "") -> Iterator[str]:
    """Where there is a name without a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        if entry is None and not place.endswith("/enum"):
            yield f"{place}/{name}"
        yield from _nothings(entry, f"{place}/{name}")


def test_description_knows_the_words_of_the_code() -> None:
    """States, error codes, sources, scopes and event types are the same here and there."""
    schemas = DOCUMENT["components"]["schemas"]

    assert schemas["JobStatus"]["enum"] == [each.value for each in JobStatus]
    assert schemas["JobError"]["properties"]["code"]["enum"] == [each.value for each in ErrorCode]
    assert schemas["Scope"]["enum"] == [each.value for each in Scope]
    assert schemas["TimelineRow"]["properties"]["source"]["enum"] == [each.value for each in Source]
    assert schemas["JobEvent"]["properties"]["type"]["enum"] == list(JOB_EVENT_TYPES)
    assert list(DOCUMENT["webhooks"]) == list(EVENT_TYPES)


def _check(answer: httpx.Response, method: str, path: str) -> None:
    """The answer is one that the document promises, in every field."""
    responses = DOCUMENT["paths"][path][method]["responses"]
    found = responses.get(str(answer.status_code)) or responses["default"]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    content = found["content"][answer.headers["content-type"].partition(";")[0]]
    schema = {**content["schema"], "components": CLOSED}
    errors = list(Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(answer.json()))

    assert errors == [], (method, path, answer.text)


async def test_answers_are_as_described(served: Served) -> None:
    """Every kind of object, as it is really answered, fits its schema."""
    client = served.client
    done, stuck = await served.completed(callback_url="http://127.0.0.1:9/"), await served.take()
    delivery = (await client.get("/v1/deliveries")).json()["data"][0]["id"]
    made = await client.post("/v1/subscriptions", json={"url": "http://127.0.0.1:9/", "headers": {"X-A": "b"}})
    one = made.json()["id"]
    own = (await client.get("/v1/account")).json()["id"]
    for method, path, url, body in (
        ("get", "/v1/jobs/{job_id}", f"/v1/jobs/{done['id']}", None),
        ("get", "/v1/jobs", "/v1/jobs", None),
        ("get", "/v1/jobs/{job_id}/events", f"/v1/jobs/{done['id']}/events", None),
        ("post", "/v1/jobs", "/v1/jobs", STUCK),
        ("post", "/v1/jobs", "/v1/jobs", {}),
        ("post", "/v1/jobs/{job_id}/cancel", f"/v1/jobs/{stuck['id']}/cancel", None),
        ("post", "/v1/jobs/{job_id}/cancel", f"/v1/jobs/{done['id']}/cancel", None),
        ("get", "/v1/providers", "/v1/providers", None),
        ("get", "/v1/providers/{name}", "/v1/providers/sharkai", None),
        ("get", "/v1/account", "/v1/account", None),
        ("post", "/v1/account/rotate-secret", "/v1/account/rotate-secret", None),
        ("post", "/v1/accounts", "/v1/accounts", {"name": "x"}),
        ("get", "/v1/accounts", "/v1/accounts", None),
        ("patch", "/v1/accounts/{account_id}", f"/v1/accounts/{own}", {"limit": "monthly", "budget": "0.02"}),
        ("get", "/v1/account", "/v1/account", None),
        ("post", "/v1/jobs", "/v1/jobs", STUCK),
        ("post", "/v1/jobs", "/v1/jobs", STUCK),
        ("patch", "/v1/accounts/{account_id}", f"/v1/accounts/{own}", {"limit": "none"}),
        ("post", "/v1/accounts/{account_id}/credit", f"/v1/accounts/{own}/credit", {"amount": "5.00", "reason": "x"}),
        ("get", "/v1/account/transfers", "/v1/account/transfers", None),
        ("get", "/v1/usage", "/v1/usage", None),
        ("get", "/v1/usage", "/v1/usage?group_by=day,provider,operation,model,status,key,tag", None),
        ("post", "/v1/keys", "/v1/keys", {"name": "x", "scopes": ["jobs:read"]}),
        ("get", "/v1/keys", "/v1/keys", None),
        ("get", "/v1/subscriptions", "/v1/subscriptions", None),
        ("get", "/v1/subscriptions/{subscription_id}", f"/v1/subscriptions/{one}", None),
        ("patch", "/v1/subscriptions/{subscription_id}", f"/v1/subscriptions/{one}", {"description": "x"}),
        ("post", "/v1/subscriptions/{subscription_id}/rotate-secret", f"/v1/subscriptions/{one}/rotate-secret", None),
        ("post", "/v1/subscriptions/{subscription_id}/test", f"/v1/subscriptions/{one}/test", None),
        (
            "post",
            "/v1/subscriptions/{subscription_id}/disable",
            f"/v1/subscriptions/{one}/disable",
            {"reason": "moving"},
        ),
        ("post", "/v1/subscriptions/{subscription_id}/enable", f"/v1/subscriptions/{one}/enable", None),
        ("get", "/v1/events", "/v1/events", None),
        ("get", "/v1/events", "/v1/events?cursor=cG9zOjk5OTk5OTk", None),
        ("get", "/v1/events/stream", "/v1/events/stream?cursor=cG9zOjk5OTk5OTk", None),
        ("post", "/v1/subscriptions/{subscription_id}/replay", f"/v1/subscriptions/{one}/replay", SINCE),
        (
            "post",
            "/v1/subscriptions/{subscription_id}/replay",
            f"/v1/subscriptions/{one}/replay",
            SINCE | {"dry_run": True},
        ),
        ("get", "/v1/replays", "/v1/replays", None),
        ("get", "/v1/deliveries", "/v1/deliveries", None),
        ("get", "/v1/deliveries/{delivery_id}", f"/v1/deliveries/{delivery}", None),
        ("post", "/v1/deliveries/{delivery_id}/retry", f"/v1/deliveries/{delivery}/retry", None),
        ("get", "/", "/", None),
        ("get", "/healthz", "/healthz", None),
        ("get", "/readyz", "/readyz", None),
    ):
        _check(await client.request(method, url, json=body), method, path)
    _check(made, "post", "/v1/subscriptions")
    begun = await client.post(f"/v1/subscriptions/{one}/replay", json=SINCE)
    for method, end in (("get", ""), ("post", "/cancel")):
        answer = await client.request(method, f"/v1/replays/{begun.json()['id']}{end}")
        _check(answer, method, f"/v1/replays/{{replay_id}}{end}")


async def test_document_is_served_to_machines_and_a_page_to_browsers(served: Served) -> None:
    """The same address, by what is accepted; the document has the version of the service."""
    document_answer = await served.stranger.get("/schema/openapi.json")
    machine = await served.stranger.get("/schema", headers={"Accept": "application/json"})
    browser = await served.stranger.get("/schema", headers={"Accept": "text/html,application/xhtml+xml"})

    assert document_answer.json() == machine.json()
    assert re.fullmatch(r"\d+\.\d+\.\d+", machine.json()["info"]["version"])
    assert browser.headers["content-type"].startswith("text/html")
    assert browser.headers["vary"] == "Accept"


async def test_page_loads_nothing_from_elsewhere(served: Served) -> None:
    """All its files are ours, the policy lets no others in, and no inline script either."""
    page = await served.stranger.get("/schema", headers={"Accept": "text/html"})
    files = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    answers = [await served.stranger.get(file) for file in files]
    policy = page.headers["content-security-policy"]

    assert len(files) == 4
    assert all(file.startswith("/schema/static/") for file in files)
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.headers["content-type"].count("charset") for answer in answers] == [1, 0, 1, 1]
    assert not re.search(r"https?://", page.text)
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "<script>" not in page.text


@pytest.mark.parametrize("name", ["LICENSE", "%2e%2e%2fREADME.md", "nothing.js", "swagger-ui.css%00"])
async def test_page_gives_away_no_other_file(served: Served, name: str) -> None:
    """Only what the page needs is served from the directory."""
    answer = await served.stranger.get(f"/schema/static/{name}")

    assert answer.status_code == 404
