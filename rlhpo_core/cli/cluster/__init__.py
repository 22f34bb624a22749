"""The command line's part for a cluster."""
