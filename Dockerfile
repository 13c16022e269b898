# Build: everything goes into one virtual environment, from the lock file.
FROM python:3.13-slim-bookworm AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/remora UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir --disable-pip-version-check uv
WORKDIR /src
# The dependencies first: they change less often than the code, and so stay a cached layer.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --extra postgres --no-install-project
COPY README.md LICENSE ./
COPY migrations ./migrations
COPY service ./service
RUN uv sync --frozen --no-dev --extra postgres --no-editable

# Run: no compiler, no package manager's cache, no root. Only /data is written to, so it also runs with --read-only.
FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin remora \
    && install --directory --owner remora --group remora --mode 0700 /data
COPY --from=build /opt/remora /opt/remora
# The image comes without Python's own bytecode, which would be made again at every start: seconds in which nobody is served.
RUN python -m compileall -q -j 0 /usr/local/lib/python3.13
ENV PATH=/opt/remora/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REMORA_HOST=0.0.0.0 \
    REMORA_DATABASE_URL=sqlite:////data/remora.db
WORKDIR /data
VOLUME /data
EXPOSE 8080
USER 10001:10001
STOPSIGNAL SIGTERM
# Not urllib: it would take a proxy from the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('REMORA_PORT') or 8080), timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["remora"]
CMD ["serve"]
