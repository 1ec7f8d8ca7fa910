"""Post-training quantization and quantization-aware training."""
