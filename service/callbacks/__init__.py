"""What providers send to our callback URLs.

Open `inbox` first, which stores a callback and hands it to the tracker as a fact. It must not know how it came in.
"""
