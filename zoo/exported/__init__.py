"""Exported files: their formats, what travels in them, and what reads and scans by them.

Neither Keras nor TensorFlow is needed, but to run a SavedModel or to write a file, which `zoo.exporting` does.
"""
