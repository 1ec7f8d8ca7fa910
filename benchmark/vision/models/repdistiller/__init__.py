"""RepDistiller's networks for 32 x 32 images: one family per file, one builder function per published variant.

Every builder is called as `builder(classes=100)` and gives a module whose `forward` maps images [B, 3, 32, 32] to
logits [B, classes]; `interface.FeatureNetwork` says what else distillation may read from it.
"""
