"""The one reader: what the pixels of a file mean, and how they are read by regions."""
