"""Export to ONNX: the exporter, presets per processor, graph rewrites, other labels, and prompted CLIP."""
