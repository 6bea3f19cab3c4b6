"""What only MotherDuck needs: the secret with which its servers read Parquet straight from R2.

Here belongs that secret. It is made in MotherDuck from the settings; after that `load_batch` and `differences` take
`r2://` addresses, and no row passes through this machine. Values of keys appear in the one statement and nowhere else,
no error either.
"""

from __future__ import annotations

import hashlib
import threading

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.retry import with_retries
from ocr_pipeline.warehouse.sql import identifier, literal

_made: set[tuple[str, str]] = set()
"""(warehouse, hash of the statement) of the secrets that this process has made: once is enough."""
_making = threading.Lock()


def secret_name(scope: str) -> str:
    """The secret's name, one a lake: two lakes in one MotherDuck account each keep their own."""
    return "ocr_pipeline_r2_" + hashlib.sha256(scope.encode()).hexdigest()[:12]


def r2_secret_sql(*, key_id: str, secret: str, account_id: str | None, endpoint: str | None, scope: str) -> str:
    """The statement that makes the secret. `endpoint`: host of the store, for buckets of a jurisdiction; it wins over
    `account_id`. `scope`: what it opens, such as "r2://bucket/prefix/"."""
    if endpoint:
        host = endpoint.removeprefix("https://").rstrip("/")
        place = f"ENDPOINT {literal(host)}"
    elif account_id:
        place = f"ACCOUNT_ID {literal(account_id)}"
    else:
        raise WarehouseError("MotherDuck cannot read from R2: set R2_ACCOUNT_ID or R2_ENDPOINT_URL")
    return (
        f"CREATE OR REPLACE SECRET {identifier(secret_name(scope))} IN MOTHERDUCK "
        f"(TYPE R2, KEY_ID {literal(key_id)}, SECRET {literal(secret)}, {place}, REGION 'auto', SCOPE {literal(scope)})"
    )


def make_r2_secret(
    warehouse: Warehouse,
    *,
    key_id: str,
    secret: str,
    scope: str,
    account_id: str | None = None,
    endpoint: str | None = None,
) -> None:
    """Makes or renews the secret in MotherDuck, at the first call of this process. Raises WarehouseError without the
    values, and where MotherDuck does not take it."""
    statement = r2_secret_sql(key_id=key_id, secret=secret, account_id=account_id, endpoint=endpoint, scope=scope)
    made = (warehouse.target, hashlib.sha256(statement.encode()).hexdigest())

    def once() -> None:
        # not in a transaction: a secret lives outside of the database that the transaction is of
        with warehouse.session() as connection:
            connection.execute(statement)

    with _making:
        if made in _made:
            return
        try:
            # two processes that start together both replace it: a conflict, which passes
            with_retries(once, remote=warehouse.is_motherduck)
        except duckdb.Error as error:
            message = str(error).split("\n", maxsplit=1)[0]  # the lines after it repeat the statement
            for value in (secret, key_id):
                message = message.replace(value, "***").replace(value.replace("'", "''"), "***")
            raise WarehouseError(f"MotherDuck did not take the R2 secret: {message}") from None
        _made.add(made)
