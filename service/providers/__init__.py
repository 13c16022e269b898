"""The upstream APIs: what each of them is (its card), what it said, and how it is asked.

Open `registry` first, which has a `Provider` for each card; `client` and `mapping` have the words in which every provider is
understood, `adapters` the functions that an installed package may bring. It must not know jobs.
"""
