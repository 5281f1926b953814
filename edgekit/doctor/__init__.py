"""What works on this machine, what does not, and the command that mends it.

Each check is a function of a `Probe`, which reads files below a root and runs tools, so that what a board printed can
be replayed. `examination.examine` runs all of them.
"""
