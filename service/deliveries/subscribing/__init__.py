"""Changing subscriptions, and showing how each of them does.

Open `subscribe` first, the use cases; `changes` writes them. It must not send.
"""
