"""The store: the whole data model, the one writer, the readers and migrations.

Open `writer` first, which every change goes through; `sqlite` and `readers` know the engine, `opening` puts all of it together.
It must not know what a command means.
"""
