"""The store: the whole data model, the one writer, the readers and migrations.

Open `writer` first, which every change goes through; it knows an `engine`, which the package `sqlite` is; statements say by
`macros` what engines write differently; `opening` puts all of it together, `inspection` looks at it from outside.
It must not know what a command means.
"""
