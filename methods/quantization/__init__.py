"""Quantization: post-training, and aware of it while training."""
