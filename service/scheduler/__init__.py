"""The timed duties, one file each; only here APScheduler is known.

Open `duties` first, which runs them by their intervals. It must not know what is due: the store does.
"""
