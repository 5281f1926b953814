"""The runtime's pipeline: from a source through detection, tracking and classification to results."""
