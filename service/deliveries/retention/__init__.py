"""What goes of deliveries: with age, or with a job that is erased.

Open `retention_store` first; `recalled` is what this process must not send any more. It must not know how anything is sent.
"""
