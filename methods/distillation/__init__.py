"""Knowledge distillation on CIFAR: one file per paper, each the term that the paper adds to the student's loss."""
