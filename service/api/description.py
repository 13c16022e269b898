"""The description of the API, OpenAPI 3.1, made of what the routes say of themselves and of the shapes in `schemas`.

Not Litestar's own: it cannot know bodies that the routes read themselves, and its "or null" is one that generators of clients stumble over.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from litestar import HttpMethod
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema
from typing_extensions import get_original_bases

from service.api.answers.responses import PROBLEM
from service.api.requests.route import Header, RouteAnswer, RouteShape
from service.api.routes import callbacks
from service.schemas.event_schemas import JobEvent, Notice
from service.schemas.job_schemas import ModerationView
from service.schemas.query_model import QueryModel, parameters
from service.schemas.request_model import schema_at
from service.schemas.service_schemas import ProblemView
from service.schemas.values import REF, WORDS
from service.schemas.words import JOB_EVENT_TYPES, Scope
from service.states import EVENT_TYPES, JobStatus

_AT: Final = "#/components/schemas/"
_ABOUT: Final = """\
Remora rides along with image-generation APIs: it takes a job once, submits it to the provider with a callback address of
its own, finds it by polling where the callback is lost or the provider has none, and sends one signed event to every
subscriber.

Times are RFC 3339 in UTC with milliseconds. Money is a decimal text with a currency. Errors are RFC 9457
`application/problem+json` with a stable `code`. Lists answer `{"data": [], "next_cursor": null}`.
A list is read on until `next_cursor` is null, also where a page has few entries or none: a page looks at so much and no
more. What cannot be read within `REMORA_READ_TIMEOUT` is answered 503 `read_timeout`. Where GET is, HEAD is too."""
_TAGS: Final = {
    "jobs": "Take a job, look at it, wait for it.",
    "subscriptions": "Standing destinations of events.",
    "deliveries": "One event for one destination, and every try of it.",
    "events": "What happened, to be paged through or followed live.",
    "providers": "What can be asked for.",
    "accounts": "Accounts, keys, money and usage.",
    "operations": "Health, metrics, this description.",
    "webhooks": "What subscribers are sent.",
    "from outside": "Called by providers and by readers of events; no key.",
}
#: The tag of the routes of a module, where that is not called so.
_TAG_OF: Final = {
    "export": "jobs",
    "replays": "subscriptions",
    "ledger": "accounts",
    "usage": "accounts",
    "results": "from outside",
    "ops": "operations",
    "openapi": "operations",
}
_PATH_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "job_id": {"type": "string", "pattern": "^job_"},
    "account_id": {"type": "string", "pattern": "^acc_"},
    "subscription_id": {"type": "string", "pattern": "^sub_"},
    "replay_id": {"type": "string", "pattern": "^rpl_"},
    "delivery_id": {"type": "string", "pattern": "^dlv_"},
    "key_id": {"type": "string", "pattern": "^key_"},
    "index": {"type": "integer", "minimum": 0, "description": "Counted from 0."},
}
_WEBHOOK: Final = """\
Sent to the job's `callback_url` and to subscriptions. Only 2xx is success; what fails is sent again for about three
days. The same event has the same `webhook-id` every time: take each id once. Signed as Standard Webhooks `v1`."""
_WEBHOOK_HEADERS: Final = (
    Header("webhook-id", "The event's id.", {"type": "string", "pattern": "^evt_"}),
    Header("webhook-timestamp", "Seconds since 1970."),
    Header(
        "webhook-signature",
        "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; several, separated by blanks, during a rotation.",
    ),
)


class _ApiSchema(GenerateJsonSchema):
    """JSON Schema as generators of clients read it: without titles, and "or null" as a type where that can be said."""

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> dict[str, Any]:
        """See Pydantic."""
        return _with_texts(super().typed_dict_schema(schema), schema["cls"])

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """See Pydantic."""
        return _with_texts(super().model_schema(schema), schema["cls"])

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        """See Pydantic."""
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "const" not in inner:
            listed = {"enum": [*inner["enum"], None]} if "enum" in inner else {}
            return {**inner, "type": [inner["type"], "null"], **listed}
        return super().nullable_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """See Pydantic."""
        return False


def _with_texts(schema: dict[str, Any], shape: type[Any]) -> dict[str, Any]:
    texts = _texts(shape)
    for name, field in schema.get("properties", {}).items():
        if name in texts:
            field["description"] = texts[name]
    return schema


def _texts(shape: type[Any]) -> dict[str, str]:
    """What stands below the fields of a shape, by the names that callers know."""
    found: dict[str, str] = {}
    for base in get_original_bases(shape):
        if getattr(base, "__module__", "").startswith("service.schemas"):
            found |= _texts(base)
    fields = getattr(shape, "model_fields", {})
    source = inspect.getsource(shape)
    for field, text in pairwise(ast.parse(source).body[0].body):  # type: ignore[attr-defined]  # of its definition
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                known_as = getattr(fields.get(name), "alias", None) or name
                found[known_as] = inspect.cleandoc(words)
    return found


def described(routes: Iterable[BaseRouteHandler], version: str) -> dict[str, Any]:
    """The whole document.

    Args:
        routes: Of the application.
        version: Of the service.
    """
    handlers = [each for each in routes if isinstance(each, HTTPRouteHandler) and "shape" in each.opt]
    schemas = _schemas(each.opt["shape"] for each in handlers)
    paths: dict[str, dict[str, Any]] = {}
    for handler in handlers:
        for path in sorted(handler.paths):
            item = paths.setdefault(re.sub(r":\w+\}", "}", path), {})
            for method in sorted(handler.http_methods - {HttpMethod.HEAD, HttpMethod.OPTIONS}):
                item[method.lower()] = _operation(handler, path)
    for path, operation_id in (
        ("/callbacks/{token}", "receiveCallback"),
        ("/callbacks/{token}/{rest}", "receiveCallbackBelow"),
    ):
        paths[path] = {"post": _callback(path, operation_id)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Remora",
            "version": version,
            "summary": "One job in, one signed event out.",
            "description": _ABOUT,
            "contact": {"name": "Remora"},
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "webhooks": {name: {"post": _webhook(name)} for name in EVENT_TYPES},
        "components": {
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key: `Authorization: Bearer rmk_…`"}
            },
            "responses": {
                "Problem": {
                    "description": "What is wrong and what to do about it",
                    "headers": {
                        "Retry-After": {"description": "With 429 and 503: seconds.", "schema": {"type": "integer"}}
                    },
                    "content": {PROBLEM: {"schema": _reference(ProblemView)}},
                }
            },
            "schemas": schemas,
        },
    }


def _operation(handler: HTTPRouteHandler, path: str) -> dict[str, Any]:
    shape: RouteShape = handler.opt["shape"]
    summary, _, text = (inspect.getdoc(handler.fn) or "").partition("\n")
    module = handler.fn.__module__.rpartition(".")[2]
    scope = handler.opt["scope"]
    made: dict[str, Any] = {
        "tags": [_TAG_OF.get(module, module)],
        "operationId": _camel(handler.fn.__name__),
        "summary": summary.removesuffix("."),
        "description": text.strip() or summary,
    }
    if scope is None:
        made["security"] = [{"key": []}, {}] if path == "/metrics" else []
    else:
        made["x-scope"] = scope
    made["parameters"] = [*_path_parameters(path), *_headers(shape.headers), *_query(shape.query)]
    if shape.body.model_fields:
        body: dict[str, Any] = {"schema": _reference(shape.body)}
        if shape.example is not None:
            body["examples"] = {"example": {"value": shape.example}}
        made["requestBody"] = {"required": not shape.body.is_optional(), "content": {"application/json": body}}
    made["responses"] = _responses(shape.answers)
    return {name: value for name, value in made.items() if value != [] or name == "security"}


def _callback(path: str, operation_id: str) -> dict[str, Any]:
    return {
        "tags": ["from outside"],
        "operationId": operation_id,
        "summary": "A provider calls back",
        "description": "The token in the path is the message; of the body at most 256 KiB are kept.",
        "security": [],
        "parameters": list(_path_parameters(path)),
        "responses": _responses(callbacks.SHAPE.answers),
    }


def _webhook(name: str) -> dict[str, Any]:
    event = JobEvent if name in JOB_EVENT_TYPES else Notice
    return {
        "tags": ["webhooks"],
        "x-internal": True,  # nothing that a client calls: generators leave it out, or make code that does not compile
        "operationId": "on" + _camel("_" + re.sub(r"\W", "_", name)),
        "summary": (event.__doc__ or "").removesuffix("."),
        "description": _WEBHOOK,
        "security": [],
        "parameters": [{**each, "required": True} for each in _headers(_WEBHOOK_HEADERS)],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _reference(event)}}},
        "responses": {
            "2XX": {"description": "Taken"},
            "410": {"description": "Gone for good; a subscription is disabled"},
        },
    }


def _responses(answers: Iterable[RouteAnswer]) -> dict[str, Any]:
    return {str(each.status): _response(each) for each in answers} | {
        "default": {"$ref": "#/components/responses/Problem"}
    }


def _response(answer: RouteAnswer) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": dict(schema)} for media, schema in answer.media.items()}
    if answer.shape is not None:
        content[answer.media_type] = {"schema": _reference(answer.shape)}
    headers = {each.name: _header(each) for each in answer.headers}
    return (
        {"description": answer.description}
        | ({"headers": headers} if headers else {})
        | ({"content": content} if content else {})
    )


def _header(header: Header) -> dict[str, Any]:
    described = {"description": header.description} if header.description else {}
    return described | {"schema": dict(header.schema)}


def _headers(headers: Iterable[Header]) -> Iterator[dict[str, Any]]:
    for each in headers:
        yield {"name": each.name, "in": "header", **_header(each)}


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)", path):
        schema = dict(_PATH_PARAMETERS.get(name, {"type": "string"}))
        text = {"description": schema.pop("description")} if "description" in schema else {}
        yield {"name": name, "in": "path", "required": True, **text, "schema": schema}


def _query(model: type[QueryModel]) -> Iterator[dict[str, Any]]:
    for name in parameters(model):
        schema = _public(schema_at(model, (name,)))
        text = {"description": texts[name]} if name in (texts := _texts(model)) else {}
        lists = {"explode": False} if schema.get("type") == "array" else {}
        yield {"name": name, "in": "query", **text, **lists, "schema": schema}


def _schemas(shapes: Iterable[RouteShape]) -> dict[str, Any]:
    """All models that the routes name, and those that events and raw JSON refer to."""
    wanted: dict[str, Any] = {
        "ProblemView": ProblemView,
        "JobEvent": JobEvent,
        "Notice": Notice,
        "ModerationView": ModerationView,
    }
    for shape in (*shapes, callbacks.SHAPE):
        if shape.body.model_fields:
            wanted[shape.body.__name__] = shape.body
        wanted |= {each.shape.__name__: each.shape for each in shape.answers if each.shape is not None}
    inputs = [(name, "validation", TypeAdapter(model)) for name, model in wanted.items()]
    _, made = TypeAdapter.json_schemas(inputs, ref_template=_AT + "{model}", schema_generator=_ApiSchema)  # type: ignore[arg-type]
    words = {each.__name__: {"type": "string", "enum": list(each)} for each in (JobStatus, Scope)}
    found = words | {name: _public(schema) for name, schema in made["$defs"].items()}
    return dict(sorted((_public_name(name), schema) for name, schema in found.items()))


def _public(value: Any) -> Any:
    """A schema as it leaves: views without that word in their names, and without what is for our own sentences."""
    if isinstance(value, Mapping):
        if REF in value:
            return {"$ref": _AT + value[REF]}
        return {
            name: _AT + _public_name(each.removeprefix(_AT)) if name == "$ref" else _public(each)
            for name, each in value.items()
            if isinstance(each, Mapping) or not (name in {WORDS, "title"} or (name == "default" and each in (None, "")))
        }
    return [_public(each) for each in value] if isinstance(value, list) else value


def _reference(model: Any) -> dict[str, str]:
    return {"$ref": _AT + _public_name(model.__name__)}


def _public_name(name: str) -> str:
    return name.removesuffix("View")


def _camel(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(each[:1].upper() + each[1:] for each in more)
