"""A pretrained CLIP: its folder, its tensors, and the embeddings of words."""
