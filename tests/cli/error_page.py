"""The page of all errors, made from kaivc.errors: python -m tests.cli.error_page > docs/reference/errors.md."""

from collections.abc import Iterator

from kaivc.errors import KaiError

HEAD = """\
# Errors

An error says what happened, what did not, and what to do:

```
kai: E101: summarizer has no revision 'v1.0.7'
  nothing moved
  did you mean v1.0.1, v1.0.0?
```

With `--json` it is a document on stderr ([schema](schemas/error.json)):

- `error`
  - `code`: one of those below; `usage` for a command line that says nothing sensible
  - `message`: what happened
  - `unchanged`: what did not happen (not always there)
  - `hint`: what to do (not always there)
  - `facts`: particulars, by kind of error (not always there)

## Exit codes

| exit | |
|---|---|
| 0 | done |
| 1 | a check said no: `diff --exit-code`, `status --exit-code`, nothing to commit |
| 2 | the command line says nothing sensible |
| 3 to 11 | the error's, below |
| 130 | interrupted |
| 141 | nobody read the output any more |

`kai run` exits with the code of what it ran.

## Codes

Codes are unique and never reused. In Python each is an exception of `kaivc.errors`, a subclass of `KaiError`.

| code | exit | exception | |
|---|---|---|---|
"""


def page() -> str:
    """The whole text."""
    rows = sorted({(it.code, it.exit_code, it.__name__, summary(it)) for it in every(KaiError)})
    return HEAD + "".join(f"| {code} | {exit_} | `{name}` | {text} |\n" for code, exit_, name, text in rows)


def every(cls: type[KaiError]) -> Iterator[type[KaiError]]:
    """The errors that are raised as they are; E200, E300 and E900 only stand for those below them."""
    for sub in cls.__subclasses__():
        if sub.__module__ == "kaivc.errors":
            if not sub.code.endswith("00"):
                yield sub
            yield from every(sub)


def summary(cls: type[KaiError]) -> str:
    """What it means, in one line."""
    return (cls.__doc__ or "").split("\n\n", 1)[0].replace("\n", " ").replace("``", "`").strip()


if __name__ == "__main__":
    print(page(), end="")
