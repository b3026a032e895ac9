"""The architectures, each with its schema, its layers and their names in one file; and what they share.

Nothing here loads a backend before the first layer is made.
"""
