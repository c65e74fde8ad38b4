"""Collections of recordings as people have them, read into clips with labels, and written as data sets."""
