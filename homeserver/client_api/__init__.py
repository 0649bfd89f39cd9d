"""The Client-Server API: resources that decode, call the domain and encode. No rules here."""
