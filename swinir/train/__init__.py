"""Training: configuration, data, losses, optimizer, and the loop with its states and logs."""
