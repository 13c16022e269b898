"""Events on their way to destinations: written for each that wants them, claimed, signed, sent, tried again.

Open `fanout` first, which writes an event's deliveries, then `send`, which makes one attempt; `lanes` decides when. It must not
know how an event came about.
"""
