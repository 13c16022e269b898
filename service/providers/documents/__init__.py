"""Reading what providers send: packed or not, JSON or forms, paths into it, texts and links in it.

Open `reading` first, which makes a document of a body; `paths` finds a value in it. It must not know cards.
"""
