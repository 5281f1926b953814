"""Background services of a run: health sampling, load shedding, and heartbeats to the service manager."""
