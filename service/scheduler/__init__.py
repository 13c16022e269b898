"""The timed duties, one file each; only here APScheduler is known."""
