"""One file, one verb; a file is imported when its verb is called."""
