"""Fully-convolutional models: made of classifiers, described by their geometry, and checked."""
