"""The HTTP edge: thin routes over use cases, and the server that they stand on.

Open `server` first, which has all routes; `exchange` is what every request has in common, `connection` and `listener` are the wire.
It must not decide anything about a job.
"""
