"""Brings the documents of the top folder into the site that `make docs` builds.

MkDocs reads one folder, `docs/`, but the changelog, the rules for contributors and the security
policy are at the top of the checkout, where a forge looks for them. This hook adds them as pages,
and rewrites links between the two folders. MkDocs calls the functions by their names.

https://www.mkdocs.org/user-guide/configuration/#hooks
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).resolve().parents[1]
TOP_DOCUMENTS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
UP = re.compile(rf"\]\(\.\./(?=(?:{'|'.join(map(re.escape, TOP_DOCUMENTS))})[)#])")
DOWN = re.compile(r"\]\(docs/(?=[\w-]+\.md[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the top folder."""
    for name in TOP_DOCUMENTS:
        content = (TOP / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Rewrite links as if all documents were in one folder."""
    return DOWN.sub("](", UP.sub("](", markdown))
