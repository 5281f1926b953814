"""Inference engines behind one interface: ONNX Runtime for .onnx files, ncnn for .ncnn files; packages add others."""
