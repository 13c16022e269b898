"""Submit a job and wait for its end, without a loop of polls.

pip install httpx
REMORA_API_KEY=rmk_… python examples/submit.py "A lighthouse in a storm" [CALLBACK_URL]
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import httpx

FINAL = {"completed", "failed", "cancelled", "expired"}
URL = os.environ.get("REMORA_URL", "http://127.0.0.1:8080")


def main() -> None:
    """One job, from its submission to its end."""
    key = os.environ.get("REMORA_API_KEY", "")
    if len(sys.argv) < 2 or not key.isascii() or not key:
        sys.exit("usage: REMORA_API_KEY=rmk_… python examples/submit.py PROMPT [CALLBACK_URL]")
    body: dict[str, Any] = {"provider": "sandbox", "operation": "generate", "input": {"prompt": sys.argv[1]}}
    if len(sys.argv) > 2:
        body["callback_url"] = sys.argv[2]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=URL, headers=headers, timeout=70) as client:  # longer than the longest wait below
        # With the same key, sending it again after a lost answer finds the job instead of making a second one.
        job = asked(client, "POST", "/v1/jobs", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
        print("taken:", job["id"], flush=True)
        while job["status"] not in FINAL:
            job = asked(client, "GET", f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"})
    print(job["status"], *(result["url"] for result in job["results"]), job["error"] or "")


def asked(client: httpx.Client, method: str, path: str, **more: Any) -> Any:
    """What Remora answers; a refusal is told with the fields at fault."""
    answer = client.request(method, path, **more)
    said = answer.json()
    if answer.is_error:
        fields = [f"{each['pointer']} {each['detail']}" for each in said.get("errors", [])]
        sys.exit(f"{answer.status_code}: {'; '.join(fields) or said['detail']}")
    return said


if __name__ == "__main__":
    try:
        main()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(f"{URL} does not answer ({str(error) or type(error).__name__}): is `remora serve` running there?")
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.exit(f"{URL} answers, but not as Remora does: does REMORA_URL lead to it?")
    except KeyboardInterrupt:
        sys.exit("stopped waiting; the job goes on")
