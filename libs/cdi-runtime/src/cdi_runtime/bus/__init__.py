"""The message bus: JetStream with batches, order per partition, exactly one replica per partition, and settlement.

Consumes and produces nothing of its own. Invariants: a message is acknowledged only after its effect is durable; nothing overtakes within a
partition; a poisonous message never stops the others; a bad deploy never drains a stream into dead letters.
Deliberately absent: push consumers, work queues, delayed negative acknowledgements (they break the order).
"""

from cdi_runtime.bus.connection import Bus, connect, dial
from cdi_runtime.bus.isolation import StopRule, isolate
from cdi_runtime.bus.listening import listening
from cdi_runtime.bus.message import Done, Halt, Message, Outcome, Outgoing, PubAck, Reject, Retry, StreamCount
from cdi_runtime.bus.reader import Handler, Reader, ReaderSpec, reading

__all__ = [
    "Bus",
    "Done",
    "Halt",
    "Handler",
    "Message",
    "Outcome",
    "Outgoing",
    "PubAck",
    "Reader",
    "ReaderSpec",
    "Reject",
    "Retry",
    "StopRule",
    "StreamCount",
    "connect",
    "dial",
    "isolate",
    "listening",
    "reading",
]
