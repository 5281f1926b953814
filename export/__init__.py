"""From torch to ONNX: the exporter, its graph rewrites, verification and the cost counter."""
