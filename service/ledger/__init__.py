"""An account's money: limits, holds and charges, as double entries.

Open `transfers` first, which owns what may move; `book_store` writes it, `spending_limits` says whether a job may be taken, `money` how
amounts are written. It must not know what a job is.
"""
