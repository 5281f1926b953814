"""The pip commands in messages, which install extras from where this edgekit came from: clone, wheel file or index.

The name `edgekit` on PyPI belongs to another project, so no message may name it as a requirement; the distribution of
this project is `edgekit-pi`.
"""

from __future__ import annotations

import shlex

DISTRIBUTION = "edgekit-pi"


def install_command(*extras: str) -> str:
    """Return the pip command that adds extras of edgekit to this environment.

    >>> install_command("mqtt")  # installed from the index
    "pip install 'edgekit-pi[mqtt]'"
    """
    suffix = f"[{','.join(extras)}]" if extras else ""
    source = _source()
    if source is None:
        requirement = f"{DISTRIBUTION}{suffix}"
    elif source["editable"]:
        return f"pip install -e {shlex.quote(source['path'] + suffix)}"
    elif source["is_folder"]:
        requirement = f"{source['path']}{suffix}"
    else:
        requirement = f"{DISTRIBUTION}{suffix} @ file://{source['path']}"
    return f"pip install {shlex.quote(requirement)}"


def _source() -> dict[str, str] | None:
    """Return the folder or archive that edgekit was installed from (PEP 610); None if it came from an index."""
    # Imported here, because every command imports this module and only an error needs it.
    import importlib.metadata
    import json
    from urllib.parse import unquote, urlsplit

    try:
        text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        document = json.loads(text) if text else {}
        url = urlsplit(document.get("url", ""))
        folder = document.get("dir_info")
        editable = bool(folder and folder.get("editable"))
    except (importlib.metadata.PackageNotFoundError, ValueError, AttributeError, TypeError, RecursionError):
        return None
    if url.scheme != "file" or url.netloc not in ("", "localhost") or not url.path.startswith("/"):
        return None
    return {
        # pip accepts a plain path for a folder, but needs a file:// URL for an archive.
        "path": url.path if folder is None else unquote(url.path),
        "is_folder": "" if folder is None else "yes",
        "editable": "yes" if editable else "",
    }
