"""What accounts used: jobs, costs and times, counted by day, provider, model, tag and key as jobs end.

Open `counting` first, which says what a job adds to which count; `store` keeps the counts, `histogram` the times.
It must not know how a job comes to its end.
"""
