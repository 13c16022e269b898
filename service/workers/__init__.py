"""The work that providers are asked for: submitting jobs and fetching their state, each by a pool of workers.

Open `dispatch` first, which claims due work from the store for each provider that has room; `pool` has the workers, `capacity`
the room, `submit` and `fetch` the work itself. It must not decide what an answer means: that goes to the tracker as a fact.
"""
