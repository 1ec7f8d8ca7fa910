"""TensorRT: whether it can be used here, how an engine is built, what it says of itself, and how it runs."""
