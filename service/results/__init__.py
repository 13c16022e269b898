"""The files that jobs produced."""
