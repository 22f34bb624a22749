"""Tables: reading, checking, splitting, fingerprints, and how two tables differ."""
