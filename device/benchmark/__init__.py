"""Measures models on this machine: plan, worker processes, frame cache, machine state, and the report."""
