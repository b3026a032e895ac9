"""Fully-convolutional models: made of classifiers, with padding or without, and checked; models made lighter."""
