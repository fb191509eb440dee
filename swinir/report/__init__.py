"""Results for people: HTML pages, text tables, plots, and figures made of images."""
