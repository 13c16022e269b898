"""How the objects of the way of a job are wired: part of the composition root, without the process around it.

Open `stages` first, which wires all of it on a `base`. It must not run anything, nor know which store, clock or network it is: a
simulation wires the same.
"""
