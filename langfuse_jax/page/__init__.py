"""The page of `langfuse-jax demo`: what it computes, as functions of files, and how it is laid out."""
