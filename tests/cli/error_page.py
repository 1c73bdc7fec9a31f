"""The page of all errors, made from kaivc.errors: python -m tests.cli.error_page > docs/reference/errors.md."""

import inspect
from collections.abc import Iterator

from kaivc.errors import KaiError
from tests.cli.schema import load_schema, told

HEAD = """\
# Errors

An error says what happened, what did not, and what to do:

```
kai: E101: summarizer has no revision 'v1.0.7'
  nothing moved
  did you mean v1.0.1, v1.0.0?
```

With `--json` it is a document on stderr ([schema](schemas/error.json)):

KEYS
## Exit codes

| exit | |
|---|---|
| 0 | done |
| 1 | a check said no: `diff --exit-code`, `status --exit-code`, nothing to commit, an audit that found differences |
| 2 | the command line says nothing sensible |
| 3 to 11 | the error's, below |
| 130 | interrupted |
| 141 | nobody read the output any more |

`kai run` exits with the code of what it ran.

## Codes

Codes are unique and never reused. In Python each is an exception of `kaivc.errors`, a subclass of `KaiError`, with
`code`, `exit_code`, `http_status`, `what`, `unchanged`, `hint` and `facts`.

| code | exit | HTTP | |
|---|---|---|---|
"""


def page() -> str:
    """The whole text."""
    errors = sorted(every(KaiError), key=lambda it: it.code)
    rows = (f"| {link(it)} | {it.exit_code} | {it.http_status} | {summary(it)} |\n" for it in errors)
    return HEAD.replace("KEYS", told(load_schema("error"))) + "".join(rows) + "".join(map(section, errors))


def link(cls: type[KaiError]) -> str:
    """To its section."""
    return f"[{cls.code}](#{cls.code.lower()}-{cls.__name__.lower()})"


def section(cls: type[KaiError]) -> str:
    """What it means, what happens and what to do."""
    said = "\n\n".join(filter(None, (summary(cls), *more(cls))))
    return f"\n### {cls.code} {cls.__name__}\n\n{said}\n"


def every(cls: type[KaiError]) -> Iterator[type[KaiError]]:
    """The errors that are raised as they are; E200, E300 and E900 only stand for those below them."""
    for sub in cls.__subclasses__():
        if sub.__module__ == "kaivc.errors":
            if not sub.code.endswith("00"):
                yield sub
            yield from every(sub)


def summary(cls: type[KaiError]) -> str:
    """What it means, in one line."""
    return paragraphs(cls)[0]


def more(cls: type[KaiError]) -> list[str]:
    """What happens, and what to do next."""
    return paragraphs(cls)[1:]


def paragraphs(cls: type[KaiError]) -> list[str]:
    """Its docstring."""
    text = inspect.cleandoc(cls.__doc__ or "").replace("``", "`")
    return [" ".join(it.split()) for it in text.split("\n\n")]


if __name__ == "__main__":
    print(page(), end="")
