"""Image files: reading untrusted files, writing results with their metadata."""
