"""Looking at a database as an operator does: is it sound, is it up to date, and what in it waits for somebody.

Open `examine` first, which `remora doctor` asks; `invariants` are the rules, `attention` what waits. It must not change anything
when it only asks.
"""
