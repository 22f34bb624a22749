"""A study's files: an object store behind one small protocol (folder, S3), what lies where in it, and a lock."""
