"""What answers are made of: JSON, pages with their cursors, and streams.

Open `responses` first; `cursors` makes pages of lists, `pages` gives long ones their turns, `stream` is an answer that goes on. It must not
know what is shown.
"""
