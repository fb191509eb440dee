"""From clean to degraded images, and estimates of how an image was degraded."""
