"""``python -m rasteret_sql``, the same as ``rasteret-sql``."""

from rasteret_sql.cli import run

run()
