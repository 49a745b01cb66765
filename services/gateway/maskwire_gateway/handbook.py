"""The OpenAPI document as a page: plain HTML, nothing loaded from elsewhere."""

import html
import json
from collections.abc import Iterator
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { overflow: auto; padding: .75rem; border: 1px solid #8886; border-radius: .4rem; }
summary { cursor: pointer; padding: .3rem 0; }
b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
"""


def page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(info['title'])}</title>",
        "<meta name=viewport content='width=device-width'>",
        f"<style>{_STYLE}</style><h1>{_text(info['title'])} {_text(info['version'])}</h1>",
        f"<p>{_text(info['description'])}</p><p><a href=/openapi.json>openapi.json</a></p><h2>Routes</h2>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method, path, operation)
    parts.append("<h2>Messages</h2>")
    parts += [
        f"<details id={_text(name)}><summary><code>{_text(name)}</code></summary>{_pretty(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    ]
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<details><summary><b>{_text(method.upper())}</b><code>{_text(path)}</code></summary>"
    yield f"<p>{_text(operation['summary'])}</p>"
    if operation.get("parameters"):
        yield "<table>"
        for parameter in operation["parameters"]:
            schema = parameter["schema"]
            kind = ", ".join(schema.get("enum", [])) or schema.get("type", "")
            yield f"<tr><td><code>{_text(parameter['name'])}</code><td>{_text(parameter['in'])}<td>{_text(kind)}"
        yield "</table>"
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body, <code>{_text(media)}</code>:</p>{_pretty(content['schema'])}"
    for status, response in operation["responses"].items():
        for media, content in response.get("content", {}).items():
            yield f"<p>{_text(status)} {_text(response['description'])} <code>{_text(media)}</code></p>"
            if status == "200":
                yield _pretty(content["schema"])
    yield "</details>"


def _pretty(schema: Any) -> str:
    return f"<pre>{_text(json.dumps(schema, indent=1))}</pre>"


def _text(text: str) -> str:
    return html.escape(str(text))
