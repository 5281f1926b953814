"""Commands on boards over SSH: host options, and the remote forms of bench and doctor."""
