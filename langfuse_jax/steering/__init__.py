"""The steered network's training: pictures of what words mean, goals drawn for every sample, and the loss."""
