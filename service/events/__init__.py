"""An account's log of events, as it is read in order and followed live.

Open `feed_queries` first, which reads pages of it; `feed` wakes those who follow. It must not know where events are sent:
sending them again is `deliveries.replays`.
"""
