"""Tables and images: reading, checking, splitting, fingerprints, and how two of them differ."""
