"""Detection and tracking: where the faces of each frame are and which of them are the same."""
