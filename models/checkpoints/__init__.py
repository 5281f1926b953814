"""Checkpoint files: safetensors with a contract, torch files, and conversion of the EdgeCNN authors' checkpoints."""
