"""Export to ONNX: the exporter, presets per processor, graph rewrites, new labels, and prompted CLIP."""
