"""Checks of a machine that runs edgekit; each fault comes with the command that repairs it.

A check is a function of a `Probe`, which reads files below a root folder and runs tools, so that the output of a real
board can be replayed in tests. `examination.examine` runs all checks.

This package uses only the standard library, because it is also sent to boards where edgekit is not installed.
"""
