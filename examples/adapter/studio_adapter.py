"""An adapter for a provider that no card can describe: requests are signed, answers are plain text, callbacks are forms.

The five functions are all there is to an adapter, and it needs only those that differ: what it lacks, the card does. They
compute and nothing else. Requests are sent, repeated, limited and kept from private addresses by Remora.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from urllib.parse import parse_qs

from service.egress import Call
from service.providers.adapters import Ask, Heard
from service.providers.client import PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Observation, Seen
from service.providers.signatures import Judged

STATES = {"WAIT": Seen.QUEUED, "WORK": Seen.RUNNING, "DONE": Seen.COMPLETED, "FAIL": Seen.FAILED}


def build(ask: Ask) -> Call:
    """Take the request that the card describes, and sign its method, URL and body with our key instead of sending it."""
    if ask.call is None or ask.secret is None:
        raise ValueError("the card describes the request, and the key signs it")
    content = f"{ask.call.method}\n{ask.call.url}\n".encode() + (ask.call.body or b"")
    signature = hmac.new(ask.secret.encode(), content, hashlib.sha256).hexdigest()
    headers = {name: value for name, value in ask.call.headers.items() if name != "x-studio-key"}
    return replace(ask.call, headers={**headers, "accept": "text/plain", "x-studio-signature": signature})


def parse_submit(heard: Heard, by_card: SubmitOutcome) -> SubmitOutcome:
    """`OK <id>` means taken; for anything else the card's reading of the status stands."""
    word, _, task_id = heard.body.decode("utf-8", "replace").strip().partition(" ")
    if heard.status == 200 and word == "OK" and task_id:
        return SubmitOutcome(Verdict.ACCEPTED, Observation(Seen.QUEUED, task_id=task_id))
    return by_card


def parse_poll(heard: Heard, by_card: PollOutcome) -> PollOutcome:
    """`DONE <url>`, `FAIL <reason>`, `WAIT` or `WORK`."""
    observation = _observed(heard.body.decode("utf-8", "replace"))
    if heard.status == 200 and observation.seen is not None:
        return PollOutcome(PollVerdict.OBSERVED, observation)
    return by_card


def parse_callback(heard: Heard, by_card: Observation) -> Observation:
    """A form: `task=…&status=DONE+https%3A%2F%2F…`."""
    form = _form(heard)
    return replace(_observed(form.get("status", "")), task_id=form.get("task"))


def verify(heard: Heard, secrets: tuple[str, ...]) -> Judged:
    """The form's `sign` is over its other fields in order of their names, with our secret at the end."""
    form = _form(heard)
    given = form.pop("sign", "").encode()
    content = "&".join(f"{name}={form[name]}" for name in sorted(form))
    expected = [hashlib.sha256(f"{content}&{secret}".encode()).hexdigest().encode() for secret in secrets]
    if not expected:
        return Judged(None, False, "there is no secret to check with")
    if not any([hmac.compare_digest(given, wanted) for wanted in expected]):  # noqa: C419 - each in constant time
        return Judged(False, False, "sign does not fit the form")
    return Judged(True, True, "sign covers the form")


def _observed(text: str) -> Observation:
    word, _, rest = text.strip().partition(" ")
    seen = STATES.get(word)
    urls = (rest,) if seen is Seen.COMPLETED and rest.startswith("https://") else ()
    return Observation(
        seen, provider_status=word[:64] or None, urls=urls, error_message=rest if seen is Seen.FAILED else None
    )


def _form(heard: Heard) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(heard.body.decode("utf-8", "replace")).items()}
