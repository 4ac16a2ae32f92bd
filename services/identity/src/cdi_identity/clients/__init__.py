"""The services that identity asks."""
