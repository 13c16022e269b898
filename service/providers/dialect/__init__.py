"""How a card is spoken: requests built from it, answers read by it.

Open `card_dialect` first, which asks and hears by a card; `build` makes the requests, `answers` reads what comes back, `adapted` lets an
adapter's functions take over. It must not know jobs.
"""
