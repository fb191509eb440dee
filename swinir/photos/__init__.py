"""People's own photographs: model selection, restoration, folders and their records."""
