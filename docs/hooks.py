"""What mkdocs does besides: pages that lie outside of docs/ become part of the site, with links that work there.

A link to a file of the repository that is no page, such as a module, leads nowhere on the site: its text stays, with
the file's path. On a code host all of them work as they stand.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent

#: Files of the repository that are pages of the site, and their names there.
PAGES = {
    "README.md": "readme.md",
    "models/README.md": "models.md",
    "models/compact/README.md": "compact.md",
    "QUALITY_DECLARATION.md": "quality_declaration.md",
}
_NAMES = {name: path for path, name in PAGES.items()}
#: Code, which is left alone, or a link; its text may hold code.
_CODE_OR_LINK = re.compile(r"`[^`\n]*`|(!?)\[([^][]*(?:\[[^][]*\][^][]*)*)\]\(([^()\s]+)\)")


def on_files(files, config):
    for path, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """The page with links for the site."""
    here = page.file.src_uri
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.M | re.S)
    parts[::2] = [_CODE_OR_LINK.sub(lambda found: _on_the_site(found, here), part) for part in parts[::2]]
    return "".join(parts)


def _on_the_site(found: re.Match, here: str) -> str:
    image, text, target = found.groups()
    if target is None:
        return found[0]
    path, hash_, anchor = target.partition("#")
    if not path or ":" in path.split("/")[0]:
        return found[0]
    origin = _NAMES.get(here, f"docs/{here}")
    repository_path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    if repository_path in PAGES:
        page = PAGES[repository_path]
    elif repository_path.startswith("docs/") and (ROOT / repository_path).is_file():
        page = repository_path.removeprefix("docs/")
    elif (ROOT / repository_path).exists():
        return text if repository_path in text else f"{text} (`{repository_path}`)"
    else:
        return found[0]  # mkdocs says that it is not there
    return f"{image}[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{hash_}{anchor})"
