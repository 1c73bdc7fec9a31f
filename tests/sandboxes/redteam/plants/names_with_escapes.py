"""Names that would write to a terminal, end a line, or be taken for an option."""

for name in ("\x1b]0;owned\x07", "\x1b[2Jred", "a\nb", "-rf", "tab\there", "\u202egnp.exe"):
    with open(name, "w") as file:
        file.write("x")
