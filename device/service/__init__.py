"""`edgekit run` as a systemd service: started at boot, monitored by a watchdog, restarted after a failure."""
