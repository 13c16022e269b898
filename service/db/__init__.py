"""The store: the whole data model, the one writer, the readers and migrations.

Open `writer` first, which every change goes through; it knows an `engine`, which is `sqlite`, whose reads are in `readers`; statements
say by `macros` what engines write differently; `opening` puts all of it together.
It must not know what a command means.
"""
