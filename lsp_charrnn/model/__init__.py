"""The network: its shape, its files, the fast step (ONNX Runtime) and the slow reference (numpy)."""
