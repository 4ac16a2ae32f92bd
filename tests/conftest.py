"""What every level shares: examples without a deadline (the machine is shared), and logs as the services write them."""

from hypothesis import settings

from cdi_runtime.telemetry import configure_logs

settings.register_profile("cdi", deadline=None)
settings.load_profile("cdi")
configure_logs("ERROR", "tests", "tests")
