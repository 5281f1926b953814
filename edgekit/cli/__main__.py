"""`python -m edgekit.cli`, for environments whose `bin` folder is not on the PATH."""

from edgekit.cli import main

main()
