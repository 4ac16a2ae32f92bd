"""CDI warehouse loader: rows and stream position in one transaction."""
