"""How the providers that the sandbox plays word what they say, one module for each.

Open `sharkai` first; what a dialect is stands in `sandbox.dialect`. It must not know a task's life: that is the same for all.
"""
