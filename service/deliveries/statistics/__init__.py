"""How destinations do and how much waits for them, counted: for their health, for lists and for Prometheus.

Open `figures` first. It must not decide what is sent.
"""
