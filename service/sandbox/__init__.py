"""A provider in a box: a server that speaks the providers' dialects, draws pictures and misbehaves on request."""
