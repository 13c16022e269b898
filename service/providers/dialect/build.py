"""The requests that a provider gets: an input and a card become a `Call`.

Pure. It must not know how a call travels nor how its answer is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from service.egress import Call
from service.providers.card.card import Auth, Cancel, Operation, Poll, Result
from service.providers.card.forms import PLACEHOLDER, Template
from service.providers.documents.longtexts import encoded
from service.providers.documents.origins import LinkOrigins

_PATH_SAFE: Final = "/:~"  # kept as they are in an input's value inside a path, such as the model `fal-ai/flux/dev`


@dataclass(frozen=True, slots=True)
class Bound:
    """What a card is bound to.

    Args:
        base_url: What the card's paths hang on, with the operator's setting applied.
        secret: Our key at the provider.
        webhook_secret: What a provider that wants it is told to sign with.
    """

    base_url: str
    secret: str | None
    origins: LinkOrigins
    webhook_secret: str | None = None


class Requests:
    """The requests of one operation."""

    def __init__(self, operation: Operation, auth: Auth | None, bound: Bound) -> None:
        secret = bound.secret
        self.bound = bound
        self._submit = operation.spoken
        self._poll = operation.poll
        self._cancel = operation.cancel
        self._slot = operation.callback.slot if operation.callback else None
        self._in_path = frozenset(PLACEHOLDER.findall(self._submit.path))
        self._auth = {auth.header.lower(): auth.value.replace("{secret}", secret)} if auth and secret else {}
        self.submit_timeout_s = self._submit.timeout.total_seconds()
        self.poll_timeout_s = self._poll.timeout.total_seconds() if self._poll else 0.0
        self.cancel_timeout_s = self._cancel.timeout.total_seconds() if self._cancel else 0.0

    def submit(self, given: Mapping[str, object], callback_url: str | None) -> Call:
        """Hand a task in: the input as it is, the card's `extra` over it, the callback URL in its slot."""
        body = {key: value for key, value in given.items() if key not in self._in_path} | self._submit.extra
        query = _filled_all(self._submit.query, given)
        if callback_url is not None and self._slot is not None:
            if self._slot.place == "body":
                body[self._slot.field] = callback_url
            else:
                query[self._slot.field] = callback_url
            if self._slot.secret_field is not None and self.bound.webhook_secret is not None:
                body[self._slot.secret_field] = self.bound.webhook_secret
        url = self._url(_filled(self._submit.path, given, safe=_PATH_SAFE), query)
        headers = {"content-type": "application/json", **self._headers(self._submit.headers)}
        return Call(self._submit.method, url, headers, encoded(body))

    def poll(self, task_id: str, poll_url: str | None) -> Call | None:
        """Ask for a task, at the address that the provider gave if our key may go there; None: there is no address."""
        if self._poll is None:
            return None
        url = self._of_task(self._poll, task_id, poll_url)
        return Call(self._poll.method, url, self._headers(self._poll.headers)) if url is not None else None

    def result(self, task_id: str, result_url: str | None) -> Call | None:
        """Fetch a task's result, where the poll's answer does not hold it; None: there is no address."""
        result = self._poll.result if self._poll else None
        if result is None:
            return None
        url = self._of_task(result, task_id, result_url)
        return Call(result.method, url, self._headers(result.headers)) if url is not None else None

    def cancel(self, task_id: str, cancel_url: str | None) -> Call | None:
        """Cancel a task, at the address that the provider gave if our key may go there; None: there is no address."""
        if self._cancel is None:
            return None
        url = self._of_task(self._cancel, task_id, cancel_url)
        return Call(self._cancel.method, url, self._headers(self._cancel.headers)) if url is not None else None

    def _of_task(self, asked: Poll | Result | Cancel, task_id: str, given_url: str | None) -> str | None:
        url = self.bound.origins.absolute(given_url) if given_url else None
        if url is not None or asked.path is None:
            return url
        known = {"id": task_id}
        return self._url(_filled(asked.path, known, safe=""), _filled_all(asked.query, known))

    def _headers(self, own: Mapping[str, str]) -> dict[str, str]:
        return {"accept": "application/json", **{name.lower(): value for name, value in own.items()}, **self._auth}

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self.bound.base_url}{path}" + (f"?{urlencode(query, quote_via=quote, safe='')}" if query else "")


def _filled(template: Template, known: Mapping[str, object], *, safe: str) -> str:
    return PLACEHOLDER.sub(lambda match: quote(str(known.get(match[1], "")), safe=safe), template)


def _filled_all(templates: Mapping[str, Template], known: Mapping[str, object]) -> dict[str, str]:
    """The query: its values are filled as they are, since encoding the query encodes them."""
    return {name: PLACEHOLDER.sub(lambda match: str(known.get(match[1], "")), text) for name, text in templates.items()}
