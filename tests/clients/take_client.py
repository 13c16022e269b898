"""Takes a job and lists it through the client that openapi-python-client made."""

import sys

from remora_client import AuthenticatedClient
from remora_client.api.jobs import list_jobs, take_job
from remora_client.models import Job, JobPage, JobRequest, JobRequestInput, Problem

base, key = sys.argv[1:3]
remora = AuthenticatedClient(base_url=base, token=key)
asked = JobRequestInput.from_dict({"model": "sparkpix", "prompt": "a cat", "aspect_ratio": "16:9"})
request = JobRequest(provider="apimodels", operation="generate", input_=asked, tags=["a client"])
taken = take_job.sync(client=remora, body=request, prefer="wait=30")
page = list_jobs.sync(client=remora, tag="a client")
refused = take_job.sync(client=remora, body=JobRequest(provider="nobody", input_=asked))
assert isinstance(taken, Job)
assert isinstance(page, JobPage)
assert isinstance(refused, Problem)
print(taken.status.value, len(page.data), len(page.data[0].results), refused.status)
