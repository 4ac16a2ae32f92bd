"""``python -m cdi_consent [serve | migrate | --check-config]``."""

from cdi_consent.bootstrap import bootstrap
from cdi_consent.settings import Settings
from cdi_runtime.service import run_service

if __name__ == "__main__":
    run_service(bootstrap, Settings)
