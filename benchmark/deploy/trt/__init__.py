"""TensorRT: whether it can be used here, how an engine is built, what it executes, and how it runs."""
