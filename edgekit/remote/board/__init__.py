"""What runs on a board: sent along with the question, run from memory by its bare `python3`, never written there.

`loader` is what that Python is given; `setup`, `doctor` and `deploy` are what can be asked for, by their `main`. What
they import is the standard library and modules that need nothing else.
"""
