"""Sending events of the past again: what a caller may ask for, and the batches in which it is done.

Open `replay` first, the use cases; `replay_store` goes on batch by batch. It must not send: it only writes deliveries.
"""
