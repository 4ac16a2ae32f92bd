"""The other services, as identity asks them."""
