"""Flax modules: the steered network, LDFusion's, CLIP's towers and VGG19."""
