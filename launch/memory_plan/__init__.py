"""What a training takes, and how it would go, before any of it is paid for."""
