"""Commands on boards over SSH: the --host options, and helpers that the commands share."""
