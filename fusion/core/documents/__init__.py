"""Reads text files of any origin, within limits of size and depth: YAML, JSON, and plain text."""

from sensebind.fusion.core.documents.bounded import DocumentError, read_bytes, read_text
from sensebind.fusion.core.documents.json_document import parse_json, read_json
from sensebind.fusion.core.documents.yaml_document import parse_yaml, read_yaml

__all__ = ["DocumentError", "parse_json", "parse_yaml", "read_bytes", "read_json", "read_text", "read_yaml"]
