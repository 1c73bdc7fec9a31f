"""Answer other homes: over pipes, and over HTTP."""
