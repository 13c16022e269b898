"""PostgreSQL as the engine: a pool of connections, transactions over it, and what its errors mean.

Open `pg_engine` first, which is what the writer asks; `pg_errors` says what PostgreSQL's errors mean, `pg_reader` reads.
It must not know what is stored.
"""
