"""The matrix for its readers, one file per format."""
