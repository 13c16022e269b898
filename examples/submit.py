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

prompt = sys.argv[1]
body: dict[str, Any] = {"provider": "sandbox", "operation": "generate", "input": {"prompt": prompt}}
if len(sys.argv) > 2:
    body["callback_url"] = sys.argv[2]

client = httpx.Client(
    base_url=os.environ.get("REMORA_URL", "http://127.0.0.1:8080"),
    headers={"Authorization": f"Bearer {os.environ['REMORA_API_KEY']}"},
    timeout=70,  # longer than the longest wait below
)
# With the same key, sending it again after a lost answer finds the job instead of making a second one.
answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
if answer.is_error:
    sys.exit(f"{answer.status_code}: {answer.json()['detail']} {answer.json().get('errors', '')}")
job = answer.json()
print("taken:", job["id"])

while job["status"] not in {"completed", "failed", "cancelled", "expired"}:
    job = client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"}).raise_for_status().json()
print(job["status"], *(result["url"] for result in job["results"]), job["error"] or "")
