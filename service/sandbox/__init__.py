"""A provider in a box: a server that speaks the providers' dialects, draws pictures and misbehaves on request.

Open `server` first; `faults` has the misbehaviour. It must not know the service that it plays the provider for.
"""
