"""Detection and tracking: finds the faces of each frame, and gives a face the same id in all frames."""
