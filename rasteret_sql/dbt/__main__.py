"""``python -m rasteret_sql.dbt`` prints the folder of the dbt package, for ``packages.yml``."""

from rasteret_sql.dbt import PACKAGE

print(PACKAGE)  # noqa: T201
