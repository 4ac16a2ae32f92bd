"""``python -m cdi_enrichment``."""

from cdi_enrichment.bootstrap import bootstrap
from cdi_enrichment.settings import Settings
from cdi_runtime.service import run_service

if __name__ == "__main__":
    run_service(bootstrap, Settings)
