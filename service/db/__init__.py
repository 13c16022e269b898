"""The store: the whole data model, the one writer, the readers, leases and migrations."""
