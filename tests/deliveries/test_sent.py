"""What the log keeps of a request: names, and never a value."""

from __future__ import annotations

from service.deliveries.recorded import described, request_headers
from service.signing import sign_v1, signature_headers

AT = 1_795_000_000_123


def test_log_keeps_names_and_versions_only() -> None:
    """Neither a signature nor a header's value is in the text; the text is the one that is written down here."""
    headers = signature_headers([b"new" * 8, b"old" * 8], "evt_1", AT // 1000, b"{}")
    text = described("Remora/1", headers["webhook-signature"], {"X-Key": "sesame", "X-Env": "prod"})

    assert text == '{"agent":"Remora/1","signatures":["v1","v1"],"headers":["X-Key","X-Env"]}'
    assert sign_v1(b"new" * 8, "evt_1", AT // 1000, b"{}").partition(",")[2] not in text


def test_shown_headers_are_those_of_the_request_masked() -> None:
    """What was sent is shown under the names under which it was sent."""
    text = described("Remora/1", "v1,YWJj v1a,ZGVm", ["X-Key"])

    assert request_headers(text, "evt_1", AT) == {
        "X-Key": "…",
        "content-type": "application/json",
        "user-agent": "Remora/1",
        "webhook-id": "evt_1",
        "webhook-timestamp": "1795000000",
        "webhook-signature": "v1,… v1a,…",
    }


def test_requests_alike_share_one_text() -> None:
    """The text is made once for a destination, not once for an attempt."""
    first, second = described("Remora/1", "v1,YWJj", ["X-Key"]), described("Remora/1", "v1,ZGVm", ["X-Key"])

    assert first is second


def test_attempt_without_a_note_shows_none() -> None:
    """An older attempt says nothing rather than something made up."""
    assert request_headers(None, "evt_1", AT) is None
