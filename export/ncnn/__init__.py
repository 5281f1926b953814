"""Export to ncnn by way of ONNX and pnnx."""
