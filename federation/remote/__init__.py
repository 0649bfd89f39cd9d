"""What local users do and see on other servers."""
