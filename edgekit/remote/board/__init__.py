"""Programs that run on a board: sent with each command and run from memory by the board's `python3`.

`loader` imports the sent modules; `setup`, `doctor` and `deploy` are the programs, started by their `main`. They import
only the standard library, and modules of edgekit that do the same.
"""
