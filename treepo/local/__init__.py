"""What a command needs to run an engine of its own: the model, its process, garbage collection."""
