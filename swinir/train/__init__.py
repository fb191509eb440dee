"""Training: configuration, data, losses, averaged weights, and the loop."""
