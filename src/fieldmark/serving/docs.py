"""API documentation for people (/docs), from the same /openapi.json that programs read.

FastAPI's own pages load scripts from another host, which the content security policy forbids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

router = APIRouter(include_in_schema=False)
_templates = Jinja2Templates(Path(__file__).parent / "templates")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Show the API documentation."""
    context = {"operations": _operations(request.app.openapi())}
    return _templates.TemplateResponse(request, "docs.html", context)


def _operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the page shows of each operation."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "summary": about["summary"],
            "description": about.get("description", ""),
            "body": about.get("requestBody", {}).get("description", ""),
            "parameters": about.get("parameters", []),
            "fields": _fields(schema, about),
            "errors": {
                status: each["description"]
                for status, each in about["responses"].items()
                if status != "200" and "description" in each
            },
        }
        for path, methods in schema["paths"].items()
        for method, about in methods.items()
    ]


def _fields(schema: dict[str, Any], about: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the fields of a 200 response and of the objects in it, with descriptions."""
    content = about["responses"]["200"].get("content", {}).get("application/json", {})
    return _walk(schema, content.get("schema", {}), "")


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
