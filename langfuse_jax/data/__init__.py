"""Training pairs: datasets prepared and read, cropped and batched."""
