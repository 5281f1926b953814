"""Checks of an exported file: equality with its source, parity of training and device code, deployability."""
