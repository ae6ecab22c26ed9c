"""Learning: texts, data, augmentation, losses and the loop."""
