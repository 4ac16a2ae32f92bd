"""The parts of the CDNOW demo: the purchases, the journeys made of them, the SDK that sends them, the advertiser that takes them."""
