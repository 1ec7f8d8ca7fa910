"""From a trained network to a measured engine: export, engines, and the inference protocol."""
