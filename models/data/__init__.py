"""Data sets and augmentation."""
