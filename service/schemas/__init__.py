"""What the API takes and answers, each shape once: parsing, answers, OpenAPI and docs come from here.

Open `job_schemas` first for what one looks like: requests are Pydantic models, which are checked, and answers are typed dicts, which mypy holds
against the code that makes them. `values` has what they are made of, `request_model` and `query_model` read what came. It must not know the
store, HTTP, or what is done with a request.
"""
