"""The diagrams of the documentation fit the width of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, pages


@pytest.mark.parametrize("page", [ROOT / "ARCHITECTURE.md", *pages()], ids=lambda path: str(path.relative_to(ROOT)))
def test_diagrams_run_from_top_to_bottom(page: Path) -> None:
    # The site shrinks a diagram to the width of the page: a row of boxes, or boxes side by side, become unreadable.
    for diagram in blocks(page.read_text(), "mermaid"):
        assert diagram.body.startswith("flowchart TD\n")
        assert "subgraph" not in diagram.body
