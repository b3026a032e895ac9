"""What computes with Keras or another runtime for a scan: engines, fragments, gradients, RoI pooling."""
