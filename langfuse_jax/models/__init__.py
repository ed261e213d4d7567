"""Flax modules: the fusion network, the student, CLIP's towers and VGG19."""
