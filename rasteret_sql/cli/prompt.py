"""Reading statements from a terminal, with prompt-toolkit and Pygments (extra ``shell``)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer
from pygments.token import Name, Token, _TokenType

from rasteret_sql.cli.completion import Catalog, candidates, is_complete

_PROMPT = "rasteret> "
_MORE = "     ...> "
_SECRET = re.compile(r"\bsecret\b|password|token", re.IGNORECASE)

Read = Callable[[], str]


def reader(catalog: Callable[[], Catalog]) -> Read:
    """A function that asks for the next statement or dot command.

    It raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C, as `input` does.

    Args:
        catalog: What completion offers; asked for at each key.
    """
    session: PromptSession[str] = PromptSession(
        history=_History(history_file()),
        completer=_Completer(catalog),
        complete_while_typing=False,
        lexer=None if os.environ.get("NO_COLOR") else PygmentsLexer(_Lexer),
        multiline=Condition(lambda: not is_complete(get_app().current_buffer.text)),
        prompt_continuation=_MORE,
        auto_suggest=AutoSuggestFromHistory(),
        enable_history_search=False,
    )
    return lambda: session.prompt(_PROMPT)


def history_file() -> Path:
    """Where statements are kept: ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "rasteret_sql" / "history"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    return path


class _History(FileHistory):
    """Keeps no statement that may hold a secret."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))

    def store_string(self, string: str) -> None:
        if not _SECRET.search(string):
            super().store_string(string)


class _Completer(Completer):
    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog

    def get_completions(self, document: Document, _event: CompleteEvent) -> Iterable[Completion]:
        for found in candidates(document.text_before_cursor, self._catalog()):
            yield Completion(found.text, start_position=-found.length, display_meta=found.what)


class _Lexer(SqlLexer):  # type: ignore[misc]  # Pygments has no types
    """SQL, with our functions in the colour of functions."""

    def get_tokens_unprocessed(
        self, text: str, stack: tuple[str, ...] = ("root",)
    ) -> Iterator[tuple[int, _TokenType, str]]:
        for index, kind, value in super().get_tokens_unprocessed(text, stack):
            is_ours = kind in Name and value.lower().startswith("rasteret_")
            yield index, Token.Name.Function if is_ours else kind, value
