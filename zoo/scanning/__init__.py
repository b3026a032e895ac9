"""Fully-convolutional models slid over images of any size."""
