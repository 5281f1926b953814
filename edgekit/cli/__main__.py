"""`python -m edgekit.cli`, for interpreters whose scripts folder is not on the path."""

from edgekit.cli import main

main()
