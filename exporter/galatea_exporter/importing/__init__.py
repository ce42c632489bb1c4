"""From an entry of the catalogue and its published package to a release."""
