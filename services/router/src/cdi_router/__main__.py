"""``python -m cdi_router``."""

from cdi_router.bootstrap import bootstrap
from cdi_router.settings import Settings
from cdi_runtime.service import run_service

if __name__ == "__main__":
    run_service(bootstrap, Settings)
