"""Image files, pairs of them, and the canvases they are placed on."""
