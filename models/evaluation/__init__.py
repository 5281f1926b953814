"""Evaluation: accuracy, recall and calibration of checkpoints and exported files, and their plots."""
