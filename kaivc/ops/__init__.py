"""Verbs: one file, one public function, one frozen result."""
