"""Image files of any origin in and out, checked, with their metadata."""
