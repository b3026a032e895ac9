"""The fully-convolutional side: needs a model, nothing of training."""
