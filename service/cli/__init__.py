"""The commands: one module for each group of them.

Open `main` first, which has them all; `api_client` asks a running service. It must not know the store but where a command says so.
"""
