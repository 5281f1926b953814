"""Commands on boards over SSH: the --host options, and what the commands share."""
