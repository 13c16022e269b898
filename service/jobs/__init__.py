"""A job from acceptance to its end: taken, tracked, listed, erased.

Open `track` first, the only writer of a job's state; `intake` takes jobs, `transitions` says what follows from what happened,
`queries` and `view` show them. It must not know who does the work (`workers`) nor who is told of it (`deliveries`).
"""
