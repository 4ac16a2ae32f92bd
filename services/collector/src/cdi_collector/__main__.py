"""``python -m cdi_collector [serve | migrate | --check-config]``."""

from cdi_collector.bootstrap import bootstrap
from cdi_collector.settings import Settings
from cdi_runtime.service import run_service

if __name__ == "__main__":
    run_service(bootstrap, Settings)
