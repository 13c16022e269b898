"""The whole data model, a module for each part of the house. Nothing but shape: no queries, no behaviour.

Open `jobs` first. It must not know who reads or writes.
Times are integer milliseconds UTC (`*_at`), money is integer micro-USD, JSON is text made by msgspec.
SQLModel does not validate tables; validation happens at the edge, and CHECK constraints repeat the invariants here.
Importing this package puts all tables into SQLModel's metadata.
"""

from sqlalchemy import BigInteger, Integer, String, Text
from sqlmodel import AutoString, SQLModel

from service.db.tables import accounts, deliveries, jobs, usage  # noqa: F401

for _table in SQLModel.metadata.tables.values():
    for _column in _table.columns:
        if type(_column.type) is Integer:  # times and money need 64 bits, which SQLite's have anyway
            _column.type = Integer().with_variant(BigInteger(), "postgresql")
        elif isinstance(_column.type, AutoString | Text):  # ids and words are compared byte by byte, as SQLite does
            _plain = Text() if isinstance(_column.type, Text) else String()  # SQLModel's own knows no variants
            _column.type = _plain.with_variant(Text(collation="C"), "postgresql")
    for _index in _table.indexes:
        if (_where := _index.dialect_options["sqlite"]["where"]) is not None:
            _index.dialect_options["postgresql"]["where"] = _where
