"""What only MotherDuck needs: the secret with which its servers read Parquet straight from R2.

Here belongs that secret. It is made in MotherDuck from the settings; after that `load_batch` takes `r2://` addresses,
and no row passes through this machine. Values of keys appear in the one statement and nowhere else, no error either.
"""

from __future__ import annotations

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.sql import identifier, literal

SECRET_NAME = "ocr_pipeline_r2"  # noqa: S105  the name of it


def r2_secret_sql(
    *, key_id: str, secret: str, account_id: str | None, endpoint: str | None, name: str = SECRET_NAME
) -> str:
    """The statement that makes the secret. `endpoint`: host of the store, for buckets of a jurisdiction; it wins over
    `account_id`."""
    if endpoint:
        host = endpoint.removeprefix("https://").rstrip("/")
        place = f"ENDPOINT {literal(host)}"
    elif account_id:
        place = f"ACCOUNT_ID {literal(account_id)}"
    else:
        raise WarehouseError("MotherDuck cannot read from R2: set R2_ACCOUNT_ID or R2_ENDPOINT_URL")
    return (
        f"CREATE OR REPLACE SECRET {identifier(name)} IN MOTHERDUCK "
        f"(TYPE R2, KEY_ID {literal(key_id)}, SECRET {literal(secret)}, {place})"
    )


def make_r2_secret(
    warehouse: Warehouse, *, key_id: str, secret: str, account_id: str | None = None, endpoint: str | None = None
) -> None:
    """Makes or renews the secret in MotherDuck; once a process is enough. Raises WarehouseError without the values."""
    statement = r2_secret_sql(key_id=key_id, secret=secret, account_id=account_id, endpoint=endpoint)
    with warehouse.session() as connection:
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            message = str(error).split("\n", maxsplit=1)[0]  # the lines after it repeat the statement
            for value in (secret, key_id):
                message = message.replace(value, "***").replace(value.replace("'", "''"), "***")
            raise WarehouseError(f"MotherDuck did not take the R2 secret: {message}") from None
