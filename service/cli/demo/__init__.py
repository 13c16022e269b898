"""`remora demo`: the whole machine on loopback, with no key and no network.

Open `command` first; `script` has what happens and when, `board` and `screen` what is seen. It must not need anything but this machine.
"""
