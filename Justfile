# The commands of daily work; `.ci/run` is the gate.

# list them
default:
    @just --list

# make the environment
setup:
    python3 -m venv .venv
    .venv/bin/pip install -q uv
    .venv/bin/uv sync --frozen --inexact

# run the tests, or some of them
test *ARGS:
    .venv/bin/pytest {{ ARGS }}

# put the code into form
format:
    .venv/bin/ruff format .
    .venv/bin/ruff check --fix .

# everything that is checked without running the code
lint:
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
    .venv/bin/mypy
    .venv/bin/lint-imports

# write the documents that are made from code
docs:
    .venv/bin/python -m tests.generated

# the main job on this machine, with no key and no network
demo *ARGS:
    .venv/bin/remora demo {{ ARGS }}

# clients that five generators make of docs/openapi.json: each compiles and takes a job (needs npm, Java and Go)
clients *ARGS:
    .venv/bin/pytest -n0 -m "java or not java" tests/clients {{ ARGS }}

# the gate
gate:
    .ci/run

# ten thousand arbitrary histories of the books
books *ARGS:
    .venv/bin/python -m tests.accounts.machine {{ ARGS }}

# the wheel, with migrations, cards and static files in it
wheel:
    .venv/bin/uv build --wheel

# the container image
image:
    docker build -t remora .

# All planted faults of the histories of lanes, those that are seen late too
histories *ARGS:
    .venv/bin/pytest -m "long or not long" tests/deliveries/test_lane_histories.py {{ ARGS }}
