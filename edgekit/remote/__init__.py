"""Boards over SSH: the workstation's side. A board needs an SSH server; `deploy` and `bench` send everything else.

`hosts` reads addresses and inventories, `ssh` holds a connection, `payload` has what is sent, `prepare` makes an
environment on the board, and `bench`, `deploy` and `doctor` use them. `board/` runs on the board. Nothing here imports
a framework or reads a password.
"""
