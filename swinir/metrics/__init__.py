"""Image quality with and without a reference."""
