"""The networks of NNI's CIFAR pruning examples: not the networks of the same names in RepDistiller or torchvision."""
