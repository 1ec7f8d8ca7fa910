"""Knowledge distillation on CIFAR: one file per paper, with the term that the paper adds to the student's loss."""
