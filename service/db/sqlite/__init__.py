"""SQLite as the engine: one file, one writing connection, readers beside it, and what SQLite needs to be looked after.

Open `sqlite_engine` first, which is what the writer asks; `sqlite_errors` says what its errors mean, `readers` read. It must not
know what is stored.
"""
