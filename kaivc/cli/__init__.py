"""The command line: argv in, text or one JSON document out, an exit code at the end."""
