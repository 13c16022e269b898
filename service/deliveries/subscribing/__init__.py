"""Changing subscriptions, and showing how each of them does.

Open `subscribe` first, the use cases; `subscription_request` checks what callers send, `changes` writes it. It must not send.
"""
