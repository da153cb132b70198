"""The reference as one page that needs nothing from anywhere: made from the OpenAPI document."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import msgspec

from paceline import __version__

Schema = Mapping[str, Any]


def render(document: Mapping[str, Any], style: str, script: str) -> str:
    """The whole page."""
    sections = "".join(_section(document, tag) for tag in document["tags"])
    shapes = "".join(_shape(name, schema) for name, schema in document["components"]["schemas"].items())
    body = f"""<a class="skip" href="#calls">To the calls</a>
<div class="frame"><nav aria-label="Contents"><label for="search">Search <kbd>/</kbd></label>
<input id="search" type="search" autocomplete="off"><p class="count" role="status"></p>
<div class="contents">{_contents(document)}</div></nav>
<main id="calls"><h1>{_(document["info"]["title"])}</h1>{_paragraphs(document["info"]["description"])}
<p><a href="/openapi.json">openapi.json</a> (OpenAPI {_(document["openapi"])})</p>
{sections}<section data-part="shapes"><h2 id="shapes">Shapes</h2>{shapes}</section></main></div>
<script>{script}</script>"""
    return _page("Paceline API reference", style, body)


def start_page(style: str, host: str) -> str:
    """What stands at ``/``: where to go. `host` is how the browser reached this server."""
    body = f"""<main class="start"><h1>Paceline</h1>
<p>A durable outbound message queue: it sends through each account as early as every limit allows, and never
earlier. This is version {_(__version__)}, and it is running.</p>
<ul><li><a href="/docs">API reference</a>, also as <a href="/openapi.json">openapi.json</a></li>
<li><a href="/health/ready">Whether messages are accepted and sent</a></li>
<li><a href="/metrics">Metrics</a> for Prometheus</li></ul>
<p>Every call under <code>/api/v1</code> takes a key:</p>
<pre tabindex="0"><code>curl -H "Authorization: Bearer $(cat data/admin.key)" \\
  http://{_(host)}/api/v1/queues/status</code></pre>
<p>The first start of the server wrote that key, into its data folder.</p></main>"""
    return _page("Paceline", style, body)


def _page(title: str, style: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_(title)}</title><style>{style}</style></head><body>{body}</body></html>"
    )


def _(text: object) -> str:
    return escape(str(text), quote=True)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_code(part)}</p>" for part in text.split("\n\n"))


def _code(text: str) -> str:
    """Text in which `ticks` mark code."""
    parts = _(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def _operations(document: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str, Schema]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield path, method, operation


def _contents(document: Mapping[str, Any]) -> str:
    parts = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{_(operation["operationId"])}">{_(operation["summary"])}</a></li>'
            for _path, _method, operation in _operations(document, tag["name"])
        )
        parts.append(f"<h2>{_(tag['name'])}</h2><ul>{links}</ul>")
    return "".join(parts) + '<h2><a href="#shapes">Shapes</a></h2>'


def _section(document: Mapping[str, Any], tag: Mapping[str, str]) -> str:
    calls = "".join(
        _call(document, path, method, operation)
        for path, method, operation in _operations(document, tag["name"])
    )
    return (
        f'<section data-part="{_(tag["name"])}"><h2>{_(tag["name"])}</h2>'
        f"<p>{_code(tag['description'])}</p>{calls}</section>"
    )


def _call(document: Mapping[str, Any], path: str, method: str, operation: Schema) -> str:
    words = f"{method} {path} {operation['summary']} {operation.get('description', '')}".lower()
    parts = [_paragraphs(operation["description"]) if operation.get("description") else ""]
    if operation.get("parameters"):
        parts.append("<h4>Parameters</h4>" + _parameters(document, operation["parameters"]))
    if "requestBody" in operation:
        parts.append("<h4>Body</h4>" + _contents_of(operation["requestBody"]["content"]))
    parts.append("<h4>Answers</h4>" + _answers(document, operation["responses"]))
    return (
        f'<details id="{_(operation["operationId"])}" data-find="{_(words)}"><summary>'
        f'<span class="method {_(method)}">{_(method.upper())}</span> <span class="path">{_(path)}</span> '
        f'<span class="told">{_(operation["summary"])}</span></summary><div>{"".join(parts)}</div></details>'
    )


def _parameters(document: Mapping[str, Any], parameters: list[Schema]) -> str:
    rows = []
    for parameter in parameters:
        parameter = _resolved(document, parameter)
        rows.append((parameter["name"], _type(parameter["schema"]), parameter.get("description", "")))
    return _table(("Name", "Type", "Meaning"), rows)


def _answers(document: Mapping[str, Any], responses: Mapping[str, Schema]) -> str:
    rows, bodies = [], []
    for status, response in responses.items():
        response = _resolved(document, response)
        rows.append((status, _kinds(response.get("content", {})), response["description"]))
        if status.startswith("2"):
            bodies.append(_examples(response.get("content", {})))
    return _table(("Status", "Content", "Meaning"), rows) + "".join(bodies)


def _kinds(content: Mapping[str, Schema]) -> str:
    return ", ".join(
        _type(part["schema"]) if kind.endswith("json") else kind for kind, part in content.items()
    )


def _contents_of(content: Mapping[str, Schema]) -> str:
    rows = [(kind, _type(part["schema"]), "") for kind, part in content.items()]
    return _table(("Content", "Shape", ""), rows) + _examples(content)


def _examples(content: Mapping[str, Schema]) -> str:
    shown = [part["example"] for part in content.values() if "example" in part]
    return "".join(f'<pre tabindex="0"><code>{_(_pretty(example))}</code></pre>' for example in shown)


def _pretty(example: Any) -> str:
    if isinstance(example, str):
        return example
    return msgspec.json.format(msgspec.json.encode(example), indent=2).decode()


def _shape(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (field + (" *" if field in required else ""), _type(part), part.get("description", ""))
        for field, part in schema.get("properties", {}).items()
    ]
    told = schema.get("description", "")
    return (
        f'<details id="{_(name)}" data-find="{_(f"{name} {told}".lower())}"><summary>'
        f'<span class="path">{_(name)}</span> <span class="told">{_(told)}</span></summary>'
        f"<div>{_table(('Field', 'Type', 'Meaning'), rows)}</div></details>"
    )


def _table(heads: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    head = "".join(f'<th scope="col">{_(one)}</th>' for one in heads)
    lines = "".join(
        f"<tr><td><code>{_(first)}</code></td><td>{_linked(second)}</td><td>{_code(third)}</td></tr>"
        for first, second, third in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _linked(kind: str) -> str:
    return " ".join(
        f'<a href="#{_(word.strip(","))}">{_(word)}</a>' if word[:1].isupper() else _(word)
        for word in kind.split(" ")
    )


def _resolved(document: Mapping[str, Any], part: Schema) -> Schema:
    if "$ref" not in part:
        return part
    found: Any = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def _type(schema: Schema) -> str:
    """A schema's type in words; names of shapes begin with a capital letter."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("enum"):
        return " | ".join(str(each) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(kind)
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
