"""How an event leaves the feed: when its job is erased, or by age.

An event is numbered (`pos`) and has its bytes (`body`); the feed is what has both. Bytes without a number wait for one. What leaves
keeps its number as `left_pos`: it is never given again, and tells a reader who stopped there where that was (decision 0013).
"""

from __future__ import annotations

from typing import Final

#: The columns of an event that leaves the feed, or that goes before it had a number.
LEFT: Final = "left_pos = pos, body = NULL, pos = NULL"
