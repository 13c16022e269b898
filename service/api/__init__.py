"""The HTTP edge: thin routes over use cases, and the server that they stand on.

Open `server` first, which puts the `routes` together; `exchange` is what every request has in common, `listening` is the wire.
It must not decide anything about a job.
"""
