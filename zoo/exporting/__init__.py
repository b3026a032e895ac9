"""Trained models for other runtimes: formats, what travels in their files, and the check of every file that is written.

What reads and runs an exported file (`carried`, `formats`, `reading`) needs neither Keras nor TensorFlow, but for a
SavedModel; what writes one is in `writing`.
"""
