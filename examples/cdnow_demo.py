"""Sends 69,659 real purchases of 23,570 people through all six services of CDI, and proves that none was lost.

    cdi demo                                    or        python examples/cdnow_demo.py

The way: Segment's SDK → collector → enrichment (consent, identity) → DuckDB and a webhook that is down for a while. Some events are sent
twice, some are invalid, some people change their mind about advertising. Exit code 0 only when the audit balances for every sink and the
totals in the warehouse are those of the file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Final

from cdnow.advertiser import Advertiser
from cdnow.journey import Step, steps_of, withdrawals
from cdnow.purchases import WHOLE_FILE, Totals, read_purchases, totals_of
from cdnow.sender import Shop, nameless

from cdi_cli.audit import AuditLine, lines_of
from cdi_cli.commands.applying import checked, send_documents
from cdi_cli.commands.auditing import read, show
from cdi_cli.commands.querying import Question, answer_of, table_of
from cdi_cli.commands.sending import BATCH_EVENTS, post_batch
from cdi_cli.suite import Endpoints, Suite
from cdi_cli.terminal import console
from cdi_runtime.telemetry.logs import configure_logs

SHOP: Final = Path(__file__).with_name("shop.yaml")
WRITE_KEY: Final = "demo-write-key"
EFFECTIVE_SECONDS: Final = 2.0
"""Documents take effect within it."""

SETTLE_SECONDS: Final = 240.0
"""How long the rest of the way may take after the last event is stored."""

NAMELESS_ONE_IN: Final = 500
MARKER: Final = ".cdi-demo"
"""Marks a directory that the demo may empty."""

ORDERS: Final = """
    SELECT * REPLACE (coalesce(context_profile_orders_to_date, 0) AS context_profile_orders_to_date) FROM (
        FROM order_completed UNION ALL BY NAME
        SELECT NULL::BIGINT AS context_profile_orders_to_date, NULL::DOUBLE AS context_profile_lifetime_value WHERE false
    )"""
"""The orders with columns that a table has from their first value on: in a short demo there may be none."""

QUERIES: Final = {
    "revenue by month": """
        SELECT strftime("timestamp", '%Y-%m') AS month, count(*) AS orders, format('{:,.2f}', sum(revenue)) AS dollars
        FROM order_completed GROUP BY month ORDER BY month""",
    "top customers": """
        SELECT user_id, count(*) AS orders, format('{:,.2f}', sum(revenue)) AS dollars
        FROM order_completed GROUP BY user_id ORDER BY sum(revenue) DESC, user_id LIMIT 10""",
    "pages viewed before the first purchase, per profile": """
        WITH firsts AS (SELECT profile_id, min("timestamp") AS first FROM order_completed GROUP BY profile_id),
        viewed AS (
            SELECT firsts.profile_id, count(pages.id) AS pages
            FROM firsts LEFT JOIN pages ON pages.profile_id = firsts.profile_id AND pages."timestamp" < firsts.first
            GROUP BY firsts.profile_id
        )
        SELECT pages, count(*) AS profiles FROM viewed GROUP BY pages ORDER BY pages""",
    "orders by what identity knew of the person's orders before": f"""
        SELECT if(context_profile_orders_to_date < 5, context_profile_orders_to_date::VARCHAR, '5 or more') AS orders_before,
            count(*) AS orders, format('{{:,.2f}}', avg(revenue)) AS dollars,
            format('{{:,.2f}}', avg(context_profile_lifetime_value)) AS lifetime_value_before
        FROM ({ORDERS}) GROUP BY orders_before ORDER BY orders_before""",
}
TOTALS: Final = "SELECT count(*), count(DISTINCT user_id), round(sum(CAST(revenue AS DECIMAL(18, 2))), 2) FROM order_completed"


def main(arguments: list[str]) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("build/demo"), help="state of the demo; emptied at the start")
    parser.add_argument("--lines", type=int, default=0, help="only the first purchases; 0 takes all")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    configure_logs("ERROR", "demo", "demo")
    started = time.monotonic()
    try:
        _empty(options.directory)
        with Advertiser() as advertiser, Suite(options.directory) as suite:
            console.print(f"six services run after {time.monotonic() - started:.0f} s; collector: {suite.http_url}")
            exact = _run(suite.endpoints, advertiser, options.lines)
            console.print(f"{time.monotonic() - started:.0f} s in all")
            if options.keep:
                console.print(f"everything keeps running until Ctrl-C; try: cdi audit --directory {options.directory}")
                signal.pause()
    except KeyboardInterrupt:
        return 130
    return 0 if exact else 1


def _run(endpoints: Endpoints, advertiser: Advertiser, lines: int) -> bool:
    """The whole way; whether everything is exact at its end."""
    os.environ |= {"SHOP_WEBHOOK_URL": advertiser.url, "SHOP_WRITE_KEY": WRITE_KEY}
    asyncio.run(send_documents(endpoints, checked([SHOP])))
    time.sleep(EFFECTIVE_SECONDS)
    purchases = read_purchases(lines)
    failures = _send(endpoints, steps_of(purchases))
    waited = time.monotonic()
    reading = asyncio.run(read(endpoints, "main", SETTLE_SECONDS, parked=True))
    console.print(f"all of it is at every sink {time.monotonic() - waited:.1f} s later")
    accounts = lines_of(reading)
    show(reading, accounts, reasons=True)
    _show_queries(endpoints)
    return all(
        [
            not failures,
            _balances(accounts),
            _advertiser_agrees(accounts, advertiser),
            _totals_agree(endpoints, totals_of(purchases) if lines else WHOLE_FILE),
        ]
    )


def _send(endpoints: Endpoints, steps: list[Step]) -> list[str]:
    """Send everything; what failed."""
    started = time.monotonic()
    shop = Shop(endpoints.http_url, WRITE_KEY)
    again, invalid = shop.send(steps)
    shop.flush()
    shop.close()
    broken = list(nameless(len(steps) // NAMELESS_ONE_IN))
    for start in range(0, len(broken), BATCH_EVENTS):
        post_batch(endpoints.http_url, WRITE_KEY, broken[start : start + BATCH_EVENTS])
    seconds = time.monotonic() - started
    total = shop.sent + len(broken)
    console.print(
        f"{total:,} events sent in {seconds:.0f} s ({total / seconds:,.0f} a second): {again:,} of them again, "
        f"{invalid + len(broken):,} invalid; {withdrawals(steps):,} people withdrew advertising",
        soft_wrap=True,
    )
    for failure in shop.failures:
        console.print(f"the SDK gave up on {failure}", style="red")
    return shop.failures


def _show_queries(endpoints: Endpoints) -> None:
    for title, sql in QUERIES.items():
        names, rows, _ = asyncio.run(answer_of(endpoints, Question(sql)))
        console.print(table_of(names, rows, title))


def _balances(accounts: list[AuditLine]) -> bool:
    return all(account.settled for account in accounts)


def _advertiser_agrees(accounts: list[AuditLine], advertiser: Advertiser) -> bool:
    """The advertiser has what the audit says it has."""
    delivered = sum(account.outcomes.get("delivered", 0) for account in accounts)
    had = len(advertiser.message_ids)
    agrees = had == delivered
    console.print(
        f"advertiser: {had:,} different events, {advertiser.events - had:,} came twice, {advertiser.refused:,} requests answered with 503",
        style="green" if agrees else "red",
        soft_wrap=True,
    )
    return agrees


def _totals_agree(endpoints: Endpoints, expected: Totals) -> bool:
    """The warehouse has exactly what the file has."""
    _, ((orders, customers, dollars),), _ = asyncio.run(answer_of(endpoints, Question(TOTALS)))
    found = Totals(int(orders), int(customers), Decimal(str(dollars)))
    agrees = found == expected
    console.print(
        f"warehouse: {found.orders:,} orders, {found.customers:,} customers, {found.dollars:,} dollars; "
        + ("exactly as in the file" if agrees else f"expected {expected.orders:,}, {expected.customers:,}, {expected.dollars:,}"),
        style="green" if agrees else "red",
        soft_wrap=True,
    )
    return agrees


def _empty(directory: Path) -> None:
    """Begin with an empty directory; one that is not the demo's own is left alone."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise SystemExit(f"{directory} is not empty and not of the demo")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
