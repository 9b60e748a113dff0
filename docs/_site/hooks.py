"""What mkdocs.yml cannot say: a page of commands from the help texts, and pages without their line of languages."""

import re
from typing import Any

#: The line below a title that leads to the other language, for readers of the repository; the site has a menu for it.
LANGUAGE = re.compile(r"\A(# .+\n)\n\[(?:中文|English)\]\([\w.-]+\.md\)\n")
COMMANDS = "<!-- commands -->"
#: Typer's list of the commands, with their first lines cut short; the site has a table of contents.
CUT_SHORT = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .+\n)+\n?")


def commands() -> str:
    """The help texts of all commands as Markdown, below headings of the second level."""
    import typer
    from typer.cli import get_docs_for_click

    from vireid.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="vireid"), name="vireid")
    return CUT_SHORT.sub("", text.partition("\n")[2]).strip()


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = LANGUAGE.sub(r"\1", markdown)
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown
