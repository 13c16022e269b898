"""What kind of file some bytes are, and how large the picture in it is. Nothing is decoded.

Open `sniff` first, which tells the kind; each other module reads one format's head. It must not know where the bytes are from.
"""
