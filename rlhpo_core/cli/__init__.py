"""The command line. Everything that prints, and the only place that joins all packages."""
