"""The whole data model, a module for each part of the house. Nothing but shape: no queries, no behaviour.

Open `jobs` first. It must not know who reads or writes.
Times are integer milliseconds UTC (`*_at`), money is integer micro-USD, JSON is text made by msgspec.
SQLModel does not validate tables; validation happens at the edge, and CHECK constraints repeat the invariants here.
Importing this package puts all tables into SQLModel's metadata.
"""

from service.db.tables import accounts, deliveries, jobs, usage  # noqa: F401
