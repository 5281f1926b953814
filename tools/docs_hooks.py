"""Hook of the documentation site: files of the repository outside docs/ that pages link to become part of the site.

Pages keep relative links that work in the repository. The site has these files under repository/, Markdown as pages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FOLDER = "repository"
# `](path#anchor)` of Markdown, and `src="path"` or `srcset="path"` of HTML.
_LINK = re.compile(r"""(\]\(|\bsrc(?:set)?=")([^)"#\s:]+)((?:#[^)]*)?[)"])""")
# Inline code that fits a line of a phone.
_SHORT_CODE = re.compile(r"<code>([^<\n]{1,32})</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside docs/ that a page links to, directly or through another such page."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for path in _linked(page):
            if path in seen or path.startswith("docs/"):
                continue
            seen.add(path)
            files.append(File.generated(config, f"{FOLDER}/{path}", abs_src_path=str(ROOT / path)))
            if path.endswith(".md"):
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of a page that leave docs/, and those of the files outside."""
    return rewritten(markdown, page.file.src_uri)


def on_page_content(html: str, **_: object) -> str:
    """Keep short inline code on one line: a browser would break an option after its two hyphens."""
    return _SHORT_CODE.sub(r'<code style="white-space: nowrap">\1</code>', html)


def rewritten(markdown: str, uri: str) -> str:
    """Return the text with links from one address of the site to another; unknown targets stay as they are."""
    here = _in_repository(uri)

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[2]))
        if not (ROOT / target).is_file():
            return match[0]
        return match[1] + posixpath.relpath(_in_site(target), posixpath.dirname(uri) or ".") + match[3]

    return _LINK.sub(link, markdown)


def _linked(page: str) -> Iterator[str]:
    for match in _LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), match[2]))
        if (ROOT / target).is_file():
            yield target


def _in_repository(uri: str) -> str:
    return uri.removeprefix(f"{FOLDER}/") if uri.startswith(f"{FOLDER}/") else f"docs/{uri}"


def _in_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{FOLDER}/{path}"
