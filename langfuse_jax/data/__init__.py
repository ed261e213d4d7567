"""Training pairs: reading, cropping and augmenting."""
