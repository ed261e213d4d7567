"""The compact CLIP that comes with the package: what it is taught, and how it is trained."""
