"""Texts that Kubernetes has rules for: names of objects, keys, resources, quantities.

The rules stand here and not only in Kubernetes, because what breaks them would be refused late, as
part of some Job that nobody wrote, and because names become parts of URLs that the operator calls
under its own identity. The definitions carry them in CEL, whose message says what to do.
"""

from typing import Annotated, Any

from pydantic import Field, JsonValue

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#: RFC 1123, as Kubernetes checks names of most objects.
SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_WORD = "[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?"
_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_AMOUNT = rf"^\+?{_NUMBER}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{{1,3}})?$"
_NAME_MESSAGE = (
    "is not the name of a Kubernetes object: only lower-case letters, digits, '-' and '.', "
    "beginning and ending with a letter or digit; write the object's name"
)


#: A server's address without user, query and fragment.
ENDPOINT = r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._-]+)*/?$"


def cel_text(pattern: str) -> str:
    """As a string of CEL."""
    return "'" + pattern.replace("\\", "\\\\") + "'"


def _text(pattern: str, message: str, longest: int, *, least: int = 1) -> Any:
    rule: JsonValue = {"rule": f"self.matches({cel_text(pattern)})", "message": message}
    return Field(
        min_length=least,
        max_length=longest,
        pattern=pattern,
        json_schema_extra={"x-kubernetes-validations": [rule]},
    )


#: A name of an object.
Name = Annotated[str, _text(f"^{SUBDOMAIN}$", _NAME_MESSAGE, 253)]
#: A name, or the empty text where that has a meaning of its own.
NameOrEmpty = Annotated[str, _text(f"^({SUBDOMAIN})?$", _NAME_MESSAGE, 253, least=0)]
#: A name of a namespace.
LabelName = Annotated[
    str,
    _text(
        f"^{_LABEL}$",
        "is no name of a namespace: only lower-case letters, digits and '-', beginning and ending "
        "with a letter or digit; write the namespace's name",
        63,
    ),
]
#: A key of a Secret.
Key = Annotated[
    str,
    _text(
        "^[-._a-zA-Z0-9]+$",
        "is no key of a Secret: only letters, digits, '-', '_' and '.'; write the key's name",
        253,
    ),
]
#: Such as nvidia.com/gpu or example.com/internal.
QualifiedName = Annotated[
    str,
    _text(
        f"^({SUBDOMAIN}/)?{_WORD}$",
        "is no qualified name; write it as DOMAIN/NAME, such as nvidia.com/gpu",
        253,
    ),
]
#: The API server looks at the pattern where the value is a text.
Quantity = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=64, pattern=_AMOUNT)],
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": _AMOUNT}),
]
