"""/docs: the API described for a person, from the same /openapi.json that programs read."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The page."""
    return HTMLResponse(_template().render(operations=_operations(request.app.openapi())))


@cache
def _template() -> Any:
    loader = PackageLoader("fieldmark.serving", "static")
    return Environment(loader=loader, autoescape=True).get_template("docs.html")


def _operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Each operation with what a person needs of it."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "summary": about["summary"],
            "description": about.get("description", ""),
            "body": about.get("requestBody", {}).get("description", ""),
            "parameters": about.get("parameters", []),
            "fields": _fields(schema, about),
            "refusals": {
                status: each["description"]
                for status, each in about["responses"].items()
                if status != "200" and "description" in each
            },
        }
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    ]


def _fields(schema: dict[str, Any], about: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields of a 200 answer with their descriptions, those of objects within them as well."""
    content = about["responses"]["200"].get("content", {}).get("application/json", {})
    return list(_walk(schema, content.get("schema", {}), ""))


def _walk(schema: dict[str, Any], value: dict[str, Any], path: str) -> list[tuple[str, str]]:
    for option in (value, *value.get("anyOf", ())):
        if "$ref" in option:
            value = schema["components"]["schemas"][option["$ref"].rsplit("/", 1)[-1]]
        elif option.get("type") == "array":
            return _walk(schema, option.get("items", {}), f"{path}[]")
    found: list[tuple[str, str]] = []
    for name, field in value.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        if field.get("description"):
            found.append((inner, field["description"]))
        found += _walk(schema, field, inner)
    return found
