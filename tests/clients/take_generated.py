"""Takes a job and lists it through the client that openapi-generator made for Python."""

import sys

import openapi_client
from openapi_client import JobRequest, JobsApi

base, key = sys.argv[1:3]
with openapi_client.ApiClient(openapi_client.Configuration(host=base, access_token=key)) as client:
    jobs = JobsApi(client)
    asked = {"model": "sparkpix", "prompt": "a cat", "aspect_ratio": "16:9"}
    request = JobRequest(provider="apimodels", operation="generate", input=asked, tags=["a client"])
    taken = jobs.take_job(request, prefer="wait=30")
    page = jobs.list_jobs(tag="a client")
    refused = 0
    try:
        jobs.take_job(JobRequest(provider="nobody", input=asked))
    except openapi_client.ApiException as error:
        refused = error.status
print(taken.status.value, len(page.data), len(page.data[0].results), refused)
