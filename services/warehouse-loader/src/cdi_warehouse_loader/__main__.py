"""``python -m cdi_warehouse_loader``."""

from cdi_runtime.service import run_service
from cdi_warehouse_loader.bootstrap import bootstrap
from cdi_warehouse_loader.settings import Settings

if __name__ == "__main__":
    run_service(bootstrap, Settings)
