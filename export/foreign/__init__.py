"""ONNX classifiers of other programs."""
