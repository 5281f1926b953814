"""Small nets that learn from what others say of images: teachers, their cached answers, losses, relabelling."""
