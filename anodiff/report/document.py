"""What all pages of this room are: one document without a script or an outside address, from a template beside it."""

from __future__ import annotations

from typing import Any

import jinja2


def document(template: str, **values: Any) -> str:
    """Return the HTML of a template that extends `document.html`; text among the values is escaped, markup is not.

    Raises:
        jinja2.UndefinedError: the template names what is not among the values.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anodiff", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
