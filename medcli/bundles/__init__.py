"""What an exported model is on disk, and running it with onnxruntime alone: no torch on the machine that gets it."""
