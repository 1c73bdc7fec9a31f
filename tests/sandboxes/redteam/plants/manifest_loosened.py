"""A manifest that lets the next test see a variable of the user's, and use more."""

with open("kai.yaml", "a") as file:
    file.write("isolation: {require: partial, env: [KAI_SECRET], memory: 900GiB}\n")
