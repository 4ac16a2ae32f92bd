"""TC strings bit by bit, for what no reference implementation would write."""

import base64
from collections.abc import Collection, Sequence

RANGES = Sequence[tuple[int, int]]
UPDATED_DS = 17_500_000_000  # 2025-06-15


def text_of(bits: str) -> str:
    bits += "0" * (-len(bits) % 24)
    return base64.urlsafe_b64encode(int(bits, 2).to_bytes(len(bits) // 8, "big")).decode()


def field_of(numbers: Collection[int], width: int) -> str:
    return "".join("1" if number in numbers else "0" for number in range(1, width + 1))


def vendors_of(numbers: Collection[int]) -> str:
    last = max(numbers, default=0)
    return f"{last:016b}0{field_of(numbers, last)}"


def ranges_of(ranges: RANGES) -> str:
    entries = "".join(f"0{first:016b}" if first == last else f"1{first:016b}{last:016b}" for first, last in ranges)
    return f"{len(ranges):012b}{entries}"


def tc_string(
    *,
    version: int = 2,
    policy: int = 4,
    updated_ds: int = UPDATED_DS,
    purposes: Collection[int] = (),
    interests: Collection[int] = (),
    features: Collection[int] = (),
    purpose_one_treatment: bool = False,
    vendors: Collection[int] = (),
    vendor_interests: Collection[int] = (),
    restrictions: Sequence[tuple[int, int, RANGES]] = (),
    disclosed: Collection[int] | None = None,
) -> str:
    head = f"{version:06b}{UPDATED_DS:036b}{updated_ds:036b}{31:012b}{2:012b}{1:06b}{0:012b}{150:012b}{policy:06b}10"
    head += field_of(features, 12) + field_of(purposes, 24) + field_of(interests, 24) + f"{purpose_one_treatment:b}" + "0" * 12
    entries = "".join(f"{purpose:06b}{kind:02b}{ranges_of(ranges)}" for purpose, kind, ranges in restrictions)
    core = head + vendors_of(vendors) + vendors_of(vendor_interests) + f"{len(restrictions):012b}{entries}"
    return ".".join([text_of(core), *([] if disclosed is None else [text_of("001" + vendors_of(disclosed))])])
