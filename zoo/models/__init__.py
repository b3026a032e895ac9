"""The architectures: block, stage, feature map, head; each family in a file of its own."""
