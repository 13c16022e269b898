"""When to ask a provider for a task: how long tasks take, and which moments that gives. It stores nothing and asks nobody.

Open `plan` first, which chooses the moments; `durations` learns from finished tasks, `pace` bounds both by the card's cadence.
It must not know jobs.
"""
