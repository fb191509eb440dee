"""From folders of image pairs to benchmark numbers."""
