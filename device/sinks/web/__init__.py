"""Web page of a run: video, state, metrics."""
