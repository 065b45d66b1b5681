"""``python -m rasteret_sql.dbt`` prints the folder of the dbt package, for ``packages.yml``."""

from rasteret_sql.dbt import PACKAGE

if __name__ == "__main__":
    print(PACKAGE)  # noqa: T201
