"""Cards: the YAML files that say how a provider is asked and understood, read and checked as a whole.

Open `card` first, the models of the file; `loading` reads it and tells faults with their lines. It must not send anything.
"""
