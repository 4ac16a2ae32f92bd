"""Noise by OpenDP: it samples the discrete Laplace distribution exactly and says itself what a measurement guarantees.

Sources: Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy Mechanisms" (2012); Canonne, Kamath, Steinke, "The
Discrete Gaussian for Differential Privacy" (2020), section 5.2, for the sampler. Noise is added to whole numbers only: sums of
floating-point numbers have a larger sensitivity than their bounds say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import Internal
from cdi_warehouse_loader.domain.release import ACCURACY_CHANCE, SMALL_GROUP_CHANCE, Noised

_ROUNDING: Final = 1 + 1e-9
"""The scale is a little larger than the quotient, since the library rounds the guarantee up."""


class OpenDpNoise:
    """See ``ports.Noise``."""

    def laplace(self, values: Sequence[int], sensitivity: int, epsilon: float) -> Noised:
        """See ``ports.Noise``."""
        # Imported when a clean room is first asked: it costs a process 30 MB that most loaders never need.
        from opendp import accuracy, domains, measurements, metrics, mod

        mod.enable_features("contrib")  # what the library calls proofs that it has not vetted itself; that of make_laplace is published
        scale = sensitivity / epsilon * _ROUNDING
        space = domains.vector_domain(domains.atom_domain(T="i64")), metrics.l1_distance(T="i64")
        measurement = measurements.make_laplace(*space, scale=scale)
        guaranteed: float = measurement.map(sensitivity)  # type: ignore[no-untyped-call]
        if guaranteed > epsilon:
            raise Internal(error_pb2.ERROR_REASON_INTERNAL, "the noise would protect less than was paid for")
        margin = accuracy.discrete_laplacian_scale_to_accuracy(scale, 2 * SMALL_GROUP_CHANCE)
        return Noised(measurement(list(values)), margin, accuracy.discrete_laplacian_scale_to_accuracy(scale, ACCURACY_CHANCE))
