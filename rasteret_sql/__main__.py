"""``python -m rasteret_sql``, the same as ``rasteret-sql``."""

from rasteret_sql.cli import main

main(prog_name="rasteret-sql")
