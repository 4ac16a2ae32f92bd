"""``python -m cdi_identity``."""

from cdi_identity.bootstrap import bootstrap
from cdi_identity.settings import Settings
from cdi_runtime.service import run_service

if __name__ == "__main__":
    run_service(bootstrap, Settings)
