"""Filter pruning: six criteria, masks, physically smaller networks, fine-tuning."""
