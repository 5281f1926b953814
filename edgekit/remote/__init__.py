"""Boards over SSH: what the workstation does on a host that only has to answer `ssh HOST`.

`hosts` says which boards, `ssh` holds the connection, `transfer` sends files by content, `prepare` makes an environment
there, `bench` and `deploy` use them. Nothing here imports a framework, and nothing here reads a password.
"""
