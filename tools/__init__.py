"""What the repository needs for itself; not part of the package."""
