"""The files that jobs produced: links to them, and our own copies in a storage.

Open `capture` first, which makes a copy; `storage` is where copies lie, `links` how callers reach them. It must not know who asked.
"""
