"""Many jobs at once: lists, the export, and how many there are in each state.

Open `list_queries` first. It must not know how a job changes.
"""
