"""How far builds and reads are: `counts` of the work, `display` of them.

Example:
    >>> import rasteret_sql.progress
    >>> rasteret_sql.progress.wanted(False)  # show none in this process
    >>> rasteret_sql.progress.wanted(None)  # as the environment says
"""

from __future__ import annotations

from rasteret_sql.progress.display import wanted as wanted
