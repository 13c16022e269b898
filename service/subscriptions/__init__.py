"""What a subscription is: where it leads, which events it wants, and what of it is kept sealed.

Open `destinations` first, which holds what the hot path needs of them in memory; `matching` finds those that want an event.
It must not know deliveries: who changes subscriptions stands in `deliveries.subscribing`.
"""
