"""A small student that learns to fuse as a trained network does."""
