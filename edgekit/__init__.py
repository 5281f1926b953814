"""edgekit takes a small-input classifier from training to a Raspberry Pi."""

__version__ = "0.1.0"
